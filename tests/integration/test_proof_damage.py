"""Damage under a running controller: found, put aside, healed, and red on the machine."""

from __future__ import annotations

from pathlib import Path

from tests.integration import test_cli, test_proof_cli
from tests.integration.place import Place
from tests.integration.test_proof_cli import objects

place = test_cli.place
machine = test_cli.machine
source = test_proof_cli.source


def drill_is_red(place: Place, machine: str) -> None:
    place.good("backup", "drill", machine)
    assert place.rows("machine", "ls")[0]["drill_state"] == "good"
    packs = [p for p in objects(place).glob("*/packs/*/*") if p.is_file()]
    sound = {pack: pack.read_bytes() for pack in packs}
    for pack, content in sound.items():
        broken = bytearray(content)
        for at in range(200, len(broken), 50_000):
            broken[at] ^= 1
        pack.write_bytes(broken)
    try:
        (done,) = place.rows("backup", "drill", machine, codes=(1,))
        assert done["state"] == "failed"
    finally:
        for pack, content in sound.items():
            pack.parent.mkdir(exist_ok=True)
            pack.write_bytes(content)
    assert place.rows("machine", "ls")[0]["drill_state"] in {"wrong", "failed"}
    shown = place.good("machine", "ls")
    assert "wrong" in shown or "failed" in shown
    rows = place.rows("backup", "drill", "ls", codes=(3,))
    assert [row["state"] == "good" for row in rows] == [False, True]


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
    drill_is_red(place, machine)
