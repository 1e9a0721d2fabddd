from __future__ import annotations

import itertools
import shutil
import subprocess

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.facts import holds, parse_fact
from controller.fleet.version_order import compare_versions
from protocol.errors import InvalidError

SYSTEM = {"os": {"id": "debian", "version": "12"}, "kernel": "6.1.0-18-amd64", "arch": "x86_64"}
PACKAGES = {
    "packages": [
        {"manager": "dpkg", "name": "openssl", "version": "3.0.11-1~deb12u2"},
        {"manager": "dpkg", "name": "linux-image", "version": "6.1.1-1"},
        {"manager": "dpkg", "name": "linux-image", "version": "5.10.1-1"},
        {"manager": "rpm", "name": "bash", "version": "5.1.8-9.el9"},
    ]
}


@pytest.mark.parametrize(
    ("word", "facts", "said"),
    [
        ("os.version>=12", SYSTEM, True),
        ("os.version<12", SYSTEM, False),
        ("os.version>=9", SYSTEM, True),
        ("os.id=Debian", SYSTEM, True),
        ("os.id!=debian", SYSTEM, False),
        ("kernel:6.1", SYSTEM, True),
        ("vendor:dell", SYSTEM, None),
        ("cpu.cores>=8", {"cores": 8}, True),
        ("cpu.cores>=8", {"cores": None}, None),
        ("cpu.cores>=8", {"cores": True}, None),
        ("memory<8g", {"total_bytes": 8 * 1024**3 - 1}, True),
        ("memory<8G", {"total_bytes": 8 * 1024**3}, False),
        ("package:openssl", PACKAGES, True),
        ("package:openssl<3.0.11", PACKAGES, False),
        ("package:openssl<3.0.11-1", PACKAGES, True),
        ("package:nano", PACKAGES, False),
        ("package:linux-image<6", PACKAGES, True),
        ("package:linux-image>6.1", PACKAGES, True),
        ("package:bash>=5.1.8-10", PACKAGES, False),
        ("package:openssl", {"packages": "none"}, None),
        ("service:nginx", {"services": [{"name": "nginx.service", "state": "failed"}]}, True),
        ("service:nginx=running", {"services": [{"name": "nginx", "state": "failed"}]}, False),
        ("update:openssl>=3.1", {"updates": [{"name": "openssl", "candidate": "3.1"}]}, True),
        ("port:443", {"ports": [{"port": 443, "protocol": "tcp"}]}, True),
        ("port:44", {"ports": [{"port": 443, "protocol": "tcp"}]}, False),
    ],
)
def test_a_fact_is_so_or_not_or_not_known(
    word: str, facts: dict[str, object], said: bool | None
) -> None:
    fact = parse_fact(word)
    assert fact is not None
    assert holds(fact, msgspec.json.encode({"status": "ok", "facts": facts})) is said
    for silent in (b"", b"[]", b'{"status":"unavailable","reason":"it is"}', b"[" * 10_000):
        assert holds(fact, silent) is None


names = st.sampled_from(["openssl", "openssl-dev", "a", "b.c"]) | st.text(max_size=5)
cells = names | st.sampled_from(["{", "}", '"', "},{", "dpkg", "3.0", ""]) | st.integers(0, 9)
columns = st.sampled_from(["name", "version", "manager", "source"])
table_rows = st.dictionaries(columns, cells | st.dictionaries(columns, cells, max_size=2))
tables = st.lists(table_rows, max_size=4) | st.just("none")


@given(
    facts=st.fixed_dictionaries({}, optional={"packages": tables, "manager": cells}),
    key=names.filter(lambda one: one and not set("<>=!") & set(one)),
    compared=st.sampled_from(["", "<3", ">=3.0"]),
)
def test_a_table_says_the_same_whether_all_of_it_is_read_or_one_row(
    facts: dict[str, object], key: str, compared: str
) -> None:
    fact = parse_fact(f"package:{key}{compared}")
    assert fact is not None
    body = msgspec.json.encode({"status": "ok", "facts": facts})
    # With blanks nothing is found by its text, so all of it is read.
    assert holds(fact, body) == holds(fact, msgspec.json.format(body, indent=1))


@pytest.mark.parametrize(
    "word", ["memory", "memory:8g", "memory<x", "cpu.cores=eight", "os.id<debian", "package"]
)
def test_what_cannot_be_compared_like_that_is_refused(word: str) -> None:
    with pytest.raises(InvalidError):
        parse_fact(word)


ORDERED_DEB = [
    "0~~", "0~", "0", "0a", "0.1", "1.0~rc1", "1.0", "1.0-1~deb12u1", "1.0-1", "1.0-1+b1",
    "1.0-1.1", "1.0+dfsg-1", "1.9", "1.10", "1:0.1",
]  # fmt: skip
ORDERED_RPM = [
    "1.0~rc1-1", "1.0-1", "1.0^git1-1", "1.0.1-1", "1.9-1", "1.10-1", "1.10-1.el9", "1.10-2",
    "1:0.1-1",
]  # fmt: skip


@pytest.mark.parametrize(("manager", "versions"), [("dpkg", ORDERED_DEB), ("rpm", ORDERED_RPM)])
def test_versions_are_in_the_order_of_their_manager(manager: str, versions: list[str]) -> None:
    for (place, one), (other_place, other) in itertools.product(enumerate(versions), repeat=2):
        found = compare_versions(one, other, manager)
        assert (found > 0) - (found < 0) == (place > other_place) - (place < other_place), (
            one,
            other,
        )


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg to ask")
def test_dpkg_itself_says_the_same() -> None:
    for one, other in itertools.pairwise(ORDERED_DEB):
        subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=True)
