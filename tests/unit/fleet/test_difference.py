from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.fleet.difference import Change, Kind, difference


def ok(**facts: Any) -> dict[str, Any]:
    return {"status": "ok", "reason": None, "facts": facts}


def package(name: str, version: str, arch: str = "amd64") -> dict[str, Any]:
    return {"manager": "dpkg", "name": name, "arch": arch, "version": version}


def packages(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"packages": ok(packages=list(rows))}


def test_a_new_version_is_one_change() -> None:
    before, after = packages(package("a", "1")), packages(package("a", "2"), package("b", "1"))
    assert difference(before, after) == [
        Change(
            "packages", Kind.CHANGED, "packages: a amd64 dpkg", {"version": "1"}, {"version": "2"}
        ),
        Change("packages", Kind.ADDED, "packages: b amd64 dpkg", {}, package("b", "1")),
    ]


def test_of_several_rows_with_one_key_the_equal_ones_are_matched_first() -> None:
    before = packages(package("kernel", "1"), package("kernel", "2"))
    after = packages(package("kernel", "2"), package("kernel", "3"))
    (change,) = difference(before, after)
    assert (change.before, change.after) == ({"version": "1"}, {"version": "3"})


def test_sections_come_go_and_fail() -> None:
    failed = {"status": "unavailable", "reason": "took too long", "facts": None}
    found = difference({"cpu": ok(cores=1), "ports": ok()}, {"cpu": failed, "users": ok()})
    assert [(c.section, c.kind, c.what) for c in found] == [
        ("cpu", Kind.CHANGED, "status"),
        ("ports", Kind.REMOVED, "section"),
        ("users", Kind.ADDED, "section"),
    ]
    assert found[0].after == {"status": "unavailable", "reason": "took too long"}


def test_fields_deep_down_are_named_by_their_path() -> None:
    found = difference(
        {"system": ok(os={"version": "11", "id": "debian"}, dns=["a", "b"], codename=None)},
        {"system": ok(os={"version": "12", "id": "debian"}, dns=["b", "c"], codename="bookworm")},
    )
    assert [(c.what, c.kind, c.before, c.after) for c in found] == [
        ("os.version", Kind.CHANGED, {"version": "11"}, {"version": "12"}),
        ("dns", Kind.CHANGED, {"dns": ["a"]}, {"dns": ["c"]}),
        ("codename", Kind.ADDED, {}, {"codename": "bookworm"}),
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
inventories = st.dictionaries(
    st.sampled_from(["cpu", "packages"]),
    st.builds(
        lambda facts: ok(**facts),
        st.dictionaries(st.sampled_from(["packages", "cores"]), json_values),
    ),
    max_size=2,
)
rows = st.lists(
    st.builds(package, st.sampled_from("ab"), st.sampled_from("123"), st.just("all")), max_size=6
)


# How fast a busy machine draws the first example says nothing about the law.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(inventories, inventories)
def test_nothing_differs_from_itself_and_the_way_back_is_the_mirror(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert difference(before, before) == []
    mirror = {Kind.ADDED: Kind.REMOVED, Kind.REMOVED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}
    there = [(c.section, c.what, mirror[c.kind]) for c in difference(before, after)]
    back = [(c.section, c.what, c.kind) for c in difference(after, before)]
    assert sorted(there) == sorted(back)


@given(rows, rows)
def test_rows_that_came_minus_those_that_went_are_the_growth(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    kinds = [change.kind for change in difference(packages(*before), packages(*after))]
    if before and after:
        assert kinds.count(Kind.ADDED) - kinds.count(Kind.REMOVED) == len(after) - len(before)
