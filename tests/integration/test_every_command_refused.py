"""Every command against a real controller, by who may not, and with names that nothing has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from tests.integration.place import Place, machine, place
from tests.unit.cli.test_every_command import WITHOUT_A_CONTROLLER, documented_codes
from tests.unit.cli.tree import Typed, commands

__all__ = ["machine", "place"]

EVERY = [one for one in commands() if one.path not in WITHOUT_A_CONTROLLER]
UNKNOWN = {"selector": "web-99", "machine": "web-99", "tenant": "nobody"}
NAMING = {*UNKNOWN, "job", "order", "token"}


def named(one: Typed) -> set[str]:
    return {str(p.name) for p in one.command.params if p.param_type_name == "argument"}


@pytest.fixture
def files(place: Place) -> Iterator[Place]:
    (place.directory / "a-file").write_bytes(b"no such thing")
    (place.directory / "a-folder").mkdir(exist_ok=True)
    yield place
    (place.directory / "a-file").unlink()


def answer(place: Place, one: Typed, words: Sequence[str], home: str = "home") -> tuple[int, str]:
    """The code, and what was wrong; on standard output there is a document, or nothing."""
    done = place.stead(*words, home=home)
    assert done.returncode in documented_codes(), done
    *_, said = ["", *done.stderr.decode().splitlines()]
    if one.has_output and done.stdout:
        json.loads(done.stdout)
    if done.returncode == 0:
        return 0, ""
    assert done.stdout == b"", done
    if one.has_output:
        return done.returncode, json.loads(said)["message"]
    assert said.startswith("error: "), done
    return done.returncode, said


@pytest.mark.parametrize(
    "one",
    [one for one in EVERY if named(one) & NAMING],
    ids=lambda one: "-".join(one.path),
)
def test_what_is_not_there_is_named_with_how_to_find_what_is(files: Place, one: Typed) -> None:
    code, said = answer(files, one, one.words(json=True, **UNKNOWN))
    assert code == 1
    assert "there is no" in said
    assert "`stead " in said


def test_an_auditor_changes_nothing_and_is_told_why(files: Place, machine: str) -> None:
    place = files
    place.good("operator", "add", "iris", "--role", "auditor", "--tenant", "acme", "--to", "iris")
    codes = {}
    for one in EVERY:
        names = {str(p.name) for p in one.command.params}
        # Should it be let through by mistake, it had better not act.
        dry = ("--dry-run",) if "dry_run" in names else ()
        words = one.words(*dry, json=True, selector=machine, machine=machine)
        codes[one.path], said = answer(place, one, words, home="iris")
        if codes[one.path] == 4 and "auditor may not " in said:
            assert said.endswith(" may"), said
    log = place.rows("audit", "ls", "--tenant", "acme") + place.rows("audit", "ls")
    assert len(log) > 5
    assert "operator/iris" not in {entry["actor"] for entry in log}
    assert {codes[path] for path in codes if path[0] in {"run", "script", "power", "logs"}} == {4}
    assert codes[("machine", "ls")] == codes[("job", "ls")] == 0
