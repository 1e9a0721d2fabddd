"""Recovery keys rotated and shared, as it is typed: real programs, controller and agent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.place import Place, machine, place

__all__ = ["machine", "place"]


@pytest.fixture
def files(place: Place) -> Path:
    made = place.directory / "files"
    if not made.exists():
        made.mkdir()
        (made / "one").write_bytes(b"one" * 1000)
    return made


def events(place: Place) -> set[str]:
    return {entry["event"] for entry in place.rows("audit", "ls", "--tenant", "acme")}


def restored(place: Place, machine: str, point: str, name: str, target: str) -> bytes:
    path = str(place.directory / "files" / name)
    to = str(place.directory / target)
    place.good("backup", "restore", machine, point, path, "--to", to)
    return (place.directory / target / name).read_bytes()


def test_old_points_stay_readable_and_new_ones_are_under_the_new_key(
    place: Place, machine: str, files: Path
) -> None:
    key_file = next((place.directory / "home" / "operator" / "tenants").iterdir())
    before_rotation = key_file.read_bytes()
    place.good("backup", "run", machine, "--path", str(files))
    (old,) = place.rows("backup", "ls", machine)
    token = place.good("token", "new", "--tenant", "acme")

    would = place.stead("tenant", "key", "rotate", "acme", "--dry-run")
    assert would.returncode == 0
    assert key_file.read_bytes() == before_rotation
    place.bad("tenant", "key", "rotate", "acme", code=2)
    place.good("tenant", "key", "rotate", "acme", "--yes", "--reason", "eve has left")

    assert token
    assert place.rows("token", "ls")[0]["state"] == "revoked"
    listed = place.rows("tenant", "key", "ls", "acme")
    assert [(k["number"], k["key_here"]) for k in listed] == [(2, True), (1, True)]
    # People are shown a key by one name, wherever they look.
    shown = place.good("tenant", "show", "acme")
    assert listed[0]["key"] in shown
    assert listed[0]["recovery_key"][:16] not in shown

    (files / "two").write_bytes(b"two")
    place.good("backup", "run", machine, "--path", str(files))
    new, again = place.rows("backup", "ls", machine)
    assert again["point"] == old["point"]
    assert old["paths"] == new["paths"] == again["paths"] == [str(files)]
    assert new["new_bytes"] >= again["new_bytes"]  # nothing is shared between keys
    assert restored(place, machine, old["point"], "one", "from-old") == b"one" * 1000
    assert restored(place, machine, new["point"], "two", "from-new") == b"two"
    # The machine has greeted again, with a proof by the new secret.
    assert [k["machines"] for k in place.rows("tenant", "key", "ls", "acme")] == [1, 0]
    assert b"key in force" in place.stead("tenant", "key", "send", "acme").stderr

    # Who has the key of before reads what was before, and nothing of what is new.
    eve = place.directory / "eve-home"
    shutil.copytree(place.directory / "home" / "operator", eve / "operator")
    (eve / "operator" / "tenants" / key_file.name).write_bytes(before_rotation)
    assert place.good("backup", "cat", machine, old["point"], f"{files}/one", home="eve-home")
    place.bad("backup", "cat", machine, new["point"], f"{files}/two", home="eve-home", code=1)
    place.bad("token", "new", "--tenant", "acme", home="eve-home", code=1)

    # Who has the newest on paper and nothing else reads all.
    paper = place.good("tenant", "key", "export", "acme", "--paper")
    (eve / "operator" / "tenants" / key_file.name).unlink()
    place.good("tenant", "key", "import", "acme", home="eve-home", stdin=paper)
    for point, name in ((old, "one"), (new, "two")):
        words = ("backup", "cat", machine, point["point"], f"{files}/{name}")
        assert place.good(*words, home="eve-home").encode() == (files / name).read_bytes()
    # So does who has the objects and no controller.
    on_paper = place.directory / "paper.txt"
    on_paper.write_text(paper)
    recover = ("vault", "recover", "--objects", str(place.directory / "home/controller/objects"))
    with_paper = (*recover, "--key", str(on_paper))
    listed = json.loads(place.good(*with_paper, "-o", "json", home="nothing"))
    assert {row["point"] for row in listed} >= {old["point"], new["point"]}
    for point, names in ((old, ["one"]), (new, ["one", "two"])):
        to = place.directory / f"recovered-{len(names)}"
        place.good(*with_paper, "--to", str(to), point["point"], str(files), home="nothing")
        found = {path.name: path.read_bytes() for path in (to / "files").iterdir()}
        assert found == {name: (files / name).read_bytes() for name in names}
    # The key of before opens what was before and nothing else.
    old_key = place.directory / "old.key"
    old_key.write_bytes(before_rotation)
    by_old = place.stead(*recover, "--key", str(old_key), "-o", "json", home="nothing")
    listed = json.loads(by_old.stdout)
    assert {row["point"] for row in listed} >= {old["point"]}
    assert new["point"] not in {row["point"] for row in listed}
    assert "tenant_key_rotated" in events(place)


def test_an_operator_hands_the_keys_to_another(place: Place, machine: str, files: Path) -> None:
    place.good("backup", "run", machine, "--path", str(files))
    place.good("operator", "add", "bob", "--role", "technician", "--tenant", "acme", "--to", "bob")
    missing = place.bad("backup", "cat", machine, "latest", f"{files}/one", home="bob", code=1)
    assert "key share" in missing
    assert "key share" in place.bad("tenant", "key", "receive", "acme", home="bob", code=1)
    place.bad("tenant", "key", "share", "acme", "--with", "nobody", code=1)
    place.good("tenant", "key", "share", "acme", "--with", "bob")
    place.good("tenant", "key", "receive", "acme", home="bob")
    assert place.good("backup", "cat", machine, "latest", f"{files}/one", home="bob")
    # A technician holds keys, and neither shares nor rotates them.
    place.bad("tenant", "key", "share", "acme", "--with", "bob", home="bob", code=4)
    place.bad("tenant", "key", "rotate", "acme", "--yes", home="bob", code=4)
    assert "tenant_key_shared" in events(place)
