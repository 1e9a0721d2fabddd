"""Files put and got by an agent that is not root."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="not run: becoming an ordinary user needs root"),
]
USER = 65534
OTHER = 12345

AS_USER = """if True:
    import grp, json, os, pwd, sys
    from pathlib import Path
    from protocol.errors import SteadError
    from tests.fakes.memory_parcels import MemoryParcels
    from tests.unit.agent.test_files import content_in, got, order_of, parcels_of, put
    pwd.getpwuid(0), grp.getgrgid(0)
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    act, path, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    try:
        if act == "put":
            put(order_of(path, b"new", **options), parcels_of(b"new"))
        else:
            parcels = MemoryParcels()
            assert content_in(parcels, got(path, parcels)) == b"content"
    except SteadError as error:
        print(error.code, str(error).replace(str(path.parent), ""))
    else:
        print("done")
"""


def act(verb: str, path: Path, options: str = "{}") -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_USER, verb, path, options],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    return done.stdout.strip()


@pytest.fixture
def folder() -> Iterator[Path]:
    """The user's own; not below pytest's, which lets nobody else pass."""
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        made = Path(above) / "own"
        made.mkdir()
        os.chown(made, USER, USER)
        yield made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_its_own_files_are_put_with_any_mode(folder: Path) -> None:
    assert act("put", folder / "a", '{"mode": 2541}') == "done"
    found = (folder / "a").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (USER, USER, 0o4755)
    assert act("put", folder / "a", '{"owner": "65534", "group": "nogroup"}') == "done"
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o4755
    assert act("put", folder / "x" / "y", '{"make_directories": true}') == "done"
    assert names(folder) == ["a", "x"]


def test_it_gives_no_file_away_and_leaves_nothing(folder: Path) -> None:
    for options in ('{"owner": "root"}', '{"group": "0"}', '{"owner": "12345"}'):
        said = act("put", folder / "a", options)
        assert said.startswith("precondition"), said
        assert "does not run as root" in said
        assert names(folder) == []


def test_what_is_anothers_is_not_replaced_by_its_own(folder: Path) -> None:
    (folder / "a").write_bytes(b"old")
    said = act("put", folder / "a")
    assert "does not run as root" in said
    assert (folder / "a").read_bytes() == b"old"
    assert act("put", folder / "a", '{"owner": "65534", "group": "65534"}') == "done"
    assert (folder / "a").read_bytes() == b"new"


def test_a_directory_that_may_be_entered_and_not_read_is_passed(folder: Path) -> None:
    box = folder.parent / "box"
    (box / "below").mkdir(parents=True)
    os.chown(box / "below", USER, USER)
    box.chmod(0o711)
    assert act("put", box / "below" / "a") == "done"
    # Nor is one into which files may be dropped, and no more.
    (box / "below").chmod(0o300)
    assert act("put", box / "below" / "b") == "done"
    (box / "below" / "b").write_bytes(b"content")
    assert act("get", box / "below" / "b") == "done"
    assert names(box / "below") == ["a", "b"]


def test_where_it_may_not_write_or_read_it_says_so(folder: Path) -> None:
    root = folder.parent
    assert "Permission denied" in act("put", root / "a")
    assert names(root) == ["own"]
    secret = folder / "secret"
    secret.write_bytes(b"content")
    secret.chmod(0o600)
    assert "Permission denied" in act("get", secret)
    (root / "closed").mkdir(0o700)
    assert "Permission denied" in act("get", root / "closed" / "a")


def test_its_own_links_and_roots_are_followed_and_no_others(folder: Path) -> None:
    root = folder.parent
    (folder / "a").write_bytes(b"content")
    own, roots, others = folder / "link", root / "link", root / "open" / "link"
    others.parent.mkdir()
    others.parent.chmod(0o1777)
    for link, owner in ((own, USER), (roots, 0), (others, OTHER)):
        link.symlink_to(folder / "a")
        os.chown(link, owner, owner, follow_symlinks=False)
    assert act("get", own) == "done"
    assert act("get", roots) == "done"
    assert act("get", others).startswith("denied")
