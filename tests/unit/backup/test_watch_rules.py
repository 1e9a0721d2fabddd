"""A run that goes by what was watched leaves out what a walk does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.watch.evidence import Why
from protocol.selection import Rules
from protocol.vault.chunk import Opener
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO
from tests.unit.backup.watched import WatchedMachine

RULES = Rules((b"*.o", b"build/", b"!keep.o"), no_defaults=True, larger_than=10_000)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchedMachine]:
    made = WatchedMachine(tmp_path)
    for name in ("src/a.c", "src/a.o", "src/build/deep/x", "lib/keep.o"):
        path = made.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    yield made
    made.stop()


def names(machine: WatchedMachine, rules: Rules) -> tuple[str, set[bytes]]:
    report = machine.run(rules=rules)
    below = bytes(machine.files).lstrip(b"/")
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    return report.detector, {entry.name for _, entry in reader.below(report.root, below)}


def test_what_happens_where_nothing_is_taken_changes_nothing(machine: WatchedMachine) -> None:
    before = {b"src", b"a.c", b"lib", b"keep.o"}
    assert names(machine, RULES)[1] == before
    (machine.files / "src/build/deep/y").write_bytes(b"new, where nobody looks")
    (machine.files / "src/build/new").mkdir()
    (machine.files / "src/build").chmod(0o700)
    (machine.files / "src/b.o").write_bytes(b"left out")
    (machine.files / "src/large").write_bytes(bytes(10_001))
    assert names(machine, RULES) == ("watch", before)
    (machine.files / "src/b.c").write_bytes(b"taken")
    (machine.files / "lib/build").mkdir()
    (machine.files / "lib/build/z").write_bytes(b"left out")
    (machine.files / "src/a.c").write_bytes(bytes(10_001))
    assert names(machine, RULES) == ("watch", {b"src", b"b.c", b"lib", b"keep.o"})


def test_other_rules_are_walked(machine: WatchedMachine) -> None:
    names(machine, RULES)
    assert names(machine, Rules(no_defaults=True))[0] == f"walk: {Why.RULES}"


def test_rules_that_ask_more_than_names_are_walked_each_time(machine: WatchedMachine) -> None:
    rules = Rules(no_defaults=True, exclude_caches=True)
    names(machine, rules)
    (machine.files / "src/CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55")
    detector, found = names(machine, rules)
    assert detector == f"walk: {Why.CHOICE}"
    assert found == {b"src", b"CACHEDIR.TAG", b"lib", b"keep.o"}
