from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from agent.host.process import run
from agent.inventory.collect import collect
from agent.inventory.delta import root_of
from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources, answered, sources_at
from protocol.errors import InvalidError, UnavailableError


def empty(sources: Sources) -> Facts:
    return Facts()


def refused(sources: Sources) -> Facts:
    raise UnavailableError("nobody is home")


def broken(sources: Sources) -> Facts:
    raise ZeroDivisionError("by \udcff zero")


def slow_program(sources: Sources) -> Facts:
    sources.run("sleep", "60").checked()
    return Facts()


def read(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])


def test_each_section_comes_with_its_hash_and_the_root_is_over_them(tmp_path: Path) -> None:
    found = collect(
        sources=sources_at(tmp_path), sections=[Section("b", 1, empty), Section("a", 1, empty)]
    )
    assert list(found.results) == ["a", "b"]
    for result in found.results.values():
        assert result.available
        assert result.hash == blake3(result.body).digest()
        assert result.took_s >= 0
    assert found.root == root_of(found.manifest)


def test_only_the_named_sections_are_collected(tmp_path: Path) -> None:
    sections = [Section("a", 1, empty), Section("b", 1, broken)]
    assert list(collect(["a"], sources=sources_at(tmp_path), sections=sections).results) == ["a"]
    assert not collect([], sources=sources_at(tmp_path), sections=sections).results


def test_an_unknown_name_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no section is called 'cups'; there are: cpu, disks"):
        collect(["cups"], sources=sources_at(tmp_path))


@pytest.mark.parametrize(
    ("collector", "reason"),
    [
        (refused, "nobody is home"),
        (broken, "the collector failed with ZeroDivisionError: by \\xff zero"),
    ],
)
def test_a_collector_that_fails_costs_its_own_section_only(
    collector: Any, reason: str, tmp_path: Path
) -> None:
    sections = [Section("bad", 1, collector), Section("good", 1, empty)]
    found = collect(sources=sources_at(tmp_path), sections=sections)
    assert found.results["good"].available
    assert not found.results["bad"].available
    assert read(found.results["bad"].body)["reason"] == reason


def test_a_section_past_its_budget_is_unavailable_and_says_the_budget(tmp_path: Path) -> None:
    release = threading.Event()

    def hanging(sources: Sources) -> Facts:
        release.wait(60)
        return Facts()

    sections = [
        Section("hangs", 1, hanging, budget_s=0.1),
        Section("program", 1, slow_program),
    ]
    found = collect(sources=sources_at(tmp_path, run=run), budget=0.2, sections=sections)
    release.set()
    assert read(found.results["hangs"].body)["reason"] == "took longer than 0.1 s"
    assert read(found.results["program"].body)["reason"] == "took longer than 0.2 s"
    assert found.results["program"].took_s < 50


def test_a_machine_without_anything_says_so_in_every_section(tmp_path: Path) -> None:
    def no_program(*argv: str, **_: Any) -> Any:
        raise UnavailableError(f"cannot start {argv[0]}")

    found = collect(sources=sources_at(tmp_path, run=no_program))
    for name, result in found.results.items():
        body = read(result.body)
        assert body["status"] == "unavailable", name
        assert body["reason"]
        assert body["facts"] is None


def test_who_does_not_answer_is_not_waited_for_and_others_are_heard() -> None:
    """One file system whose program hangs must not cost the figures of all."""
    over = threading.Event()
    with pytest.raises(OSError, match="did not answer within 0") as caught:
        answered(over.wait, 0.01)
    over.set()
    assert caught.value.strerror == "it did not answer within 0.01 s"
    assert answered(lambda: 7, 60) == 7
    with pytest.raises(PermissionError, match="no"):
        answered(refuse, 60)


def refuse() -> None:
    raise PermissionError(1, "no")
