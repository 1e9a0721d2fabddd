"""What a running controller is asked about its vault, as it is typed: real programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration import test_cli
from tests.integration.test_cli import Place

place = test_cli.place
machine = test_cli.machine


def objects(place: Place) -> Path:
    return place.directory / "home" / "controller" / "objects"


@pytest.fixture(scope="module")
def source(place: Place, machine: str) -> Path:
    """A folder with some files, backed up."""
    made = place.directory / "source"
    made.mkdir()
    for number in range(40):
        (made / f"file{number:02}").write_bytes(os.urandom(500 * number))
    (made / "big").write_bytes(os.urandom(2_000_000))
    words = ("--path", str(made), "--drill", "weekly")
    place.good("backup", "set", machine, *words)
    place.good("backup", "run", machine)
    return made


def test_a_running_controller_checks_its_vault(place: Place, source: Path) -> None:
    checked = place.rows("vault", "check")
    assert (checked["state"], checked["faults"], checked["points"]) == ("ok", [], 1)
    assert checked["packs"] == len([p for p in objects(place).glob("*/packs/*/*") if p.is_file()])
    assert "state" in place.good("vault", "scrub", "--now")
    (status,) = place.rows("vault", "scrub", "--status")
    assert status["state"] == "ok"
    assert [one["kind"] for one in status["rounds"] if one["ended_at"]] == ["ordered"]
    shown = place.good("vault", "scrub")
    assert max(map(len, shown.splitlines())) <= 80
    assert "not both" in place.bad("vault", "scrub", "--now", "--status", code=2)


def test_figures_add_up(place: Place, machine: str, source: Path) -> None:
    (vault,) = place.rows("vault", "stats")
    size = sum(path.stat().st_size for path in source.iterdir())
    assert vault["newest_bytes"] == size
    assert vault["logical_bytes"] == size * vault["points"]
    assert vault["stored_bytes"] == sum(
        p.stat().st_size for p in objects(place).glob("*/packs/*/*") if p.is_file()
    )
    # Random bytes do not compress: what is unique is what is stored, but for the tree.
    assert vault["unique_is_known"]
    assert abs(vault["unique_bytes"] - size) < size * 0.05
    assert [one["machine"] for one in vault["machines"]] == [machine]
    assert sum(one["stored_bytes"] for one in vault["growth"]) == vault["stored_bytes"]
    for words in ((), ("--machines",), ("--growth", "day")):
        shown = place.good("vault", "stats", *words)
        assert max(map(len, shown.splitlines())) <= 80


def test_damage_is_found_put_aside_named_and_healed(
    place: Place, machine: str, source: Path
) -> None:
    pack = max(
        (p for p in objects(place).glob("*/packs/*/*") if p.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 4
    pack.write_bytes(content)
    checked = place.rows("vault", "check", codes=(1,))
    assert (checked["state"], checked["damaged"]) == ("damaged", 1)
    assert pack.name in checked["faults"][0]
    scrubbed = place.rows("vault", "scrub", "--now", codes=(1,))
    assert len(scrubbed["put_aside"]) == 1
    assert not pack.exists()
    assert list(objects(place).glob(".quarantine/*/packs/*/*.reason"))
    (status,) = place.rows("vault", "scrub", codes=(1,))
    assert status["state"] == "damaged"
    (damage,) = status["damages"]
    assert damage["missing_chunks"] == 1
    (points,) = damage["points"].values()
    assert len(points) == 1
    said = place.stead("vault", "scrub").stderr.decode()
    assert machine in said
    assert "stead backup run all" in said
    place.good("backup", "run", machine)
    (status,) = place.rows("vault", "scrub")
    assert status["state"] == "ok"
    assert place.rows("vault", "check")["state"] == "ok"
    back = place.directory / "back"
    place.good("backup", "restore", machine, points[0], str(source), "--to", str(back))
    assert (back / "source" / "big").read_bytes() == (source / "big").read_bytes()
