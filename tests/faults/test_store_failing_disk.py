"""A disk that fails at any fsync, or a writer killed there: no false promise, no half object.

strace makes the chosen system call fail, or kills the process at it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from controller.db.database import Database
from controller.db.schema import installation
from controller.store.local import LocalStore

STRACED = """
import sys
from pathlib import Path
from controller.store.local import LocalStore
from controller.store.store import StoreFailedError
root = Path(sys.argv[1])
store = LocalStore(root)
for key in ("a/b/first", "a/b/second", "a/b/third"):
    try:
        store.put(key, [b"x" * 5000])
        print(key, "promised", flush=True)
    except StoreFailedError as error:
        print(key, "refused", flush=True)
"""

# Two new directories, then for each object its file and its directory.
STRACED_FSYNCS = 2 + 3 * 2


def straced(program: str, where: Path, *inject: str) -> list[str]:
    if shutil.which("strace") is None:
        pytest.skip("not run: strace is not installed")
    options = [option for each in inject for option in ("-e", f"inject={each}")]
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,link,linkat"]
    done = subprocess.run(
        [*argv, *options, sys.executable, "-c", program, str(where)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("nth", range(1, STRACED_FSYNCS + 1))
def test_a_failed_fsync_is_never_taken_for_a_promise(tmp_path: Path, nth: int) -> None:
    LocalStore.open(tmp_path)
    lines = straced(STRACED, tmp_path, f"fsync:error=EIO:when={nth}")
    assert [line.split()[1] for line in lines].count("refused") >= 1
    reopened = LocalStore.open(tmp_path)
    for line in lines:
        key, how = line.split()
        if how == "promised":
            assert reopened.get(key) == b"x" * 5000
    assert list((tmp_path / ".temporary").iterdir()) == []


def test_a_full_directory_is_said_to_be_full(tmp_path: Path) -> None:
    LocalStore.open(tmp_path)
    program = STRACED.replace("StoreFailedError", "StoreFullError")
    lines = straced(program, tmp_path, "linkat:error=ENOSPC:when=1", "link:error=ENOSPC:when=1")
    assert [line.split()[1] for line in lines] == ["refused", "promised", "promised"]


@pytest.mark.parametrize("nth", range(1, STRACED_FSYNCS + 1))
def test_a_writer_killed_at_an_fsync_leaves_whole_objects_only(tmp_path: Path, nth: int) -> None:
    LocalStore.open(tmp_path)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        straced(STRACED, tmp_path, f"fsync:signal=KILL:when={nth}")
    reopened = LocalStore.open(tmp_path)
    assert list((tmp_path / ".temporary").iterdir()) == []
    assert all(size == 5000 for _, size in reopened.list())
    for line in caught.value.stdout.splitlines():
        assert reopened.exists(line.split()[0])
    assert {reopened.put(f"a/b/{name}", [b"x" * 5000]) for name in ("first", "third")} <= {
        True,
        False,
    }
    assert reopened.get("a/b/third") == b"x" * 5000


FAILING_ACTS = """
import sys
from sqlalchemy import insert
from controller.db.database import Database
from controller.db.errors import DatabaseDamagedError
from controller.db.schema import installation
db = Database.open(f"sqlite:///{sys.argv[1]}/stead.db", check=False)
for key in ("first", "second", "third"):
    try:
        db.write_now(lambda c: c.execute(insert(installation).values(key=key, value=b"")).close())
        print(key, "promised", flush=True)
    except DatabaseDamagedError as error:
        print(key, "refused", flush=True)
db.close_now()
"""


def test_after_a_failed_commit_the_database_promises_nothing_more(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/stead.db"
    Database.open(url, create=True).close_now()
    seen: set[tuple[str, ...]] = set()
    for nth in range(1, 8):
        # What is failed is the commits; sums would be taken away with an fsync before them.
        (tmp_path / "stead.db.sums").unlink(missing_ok=True)
        injected = (f"{call}:error=EIO:when={nth}" for call in ("fdatasync", "fsync"))
        lines = straced(FAILING_ACTS, tmp_path, *injected)
        hows = tuple(line.split()[1] for line in lines)
        seen.add(hows)
        assert sorted(hows) == list(hows)
        db = Database.open(url)
        kept = db.read_now(lambda c: set(c.scalars(select(installation.c.key))))
        assert {line.split()[0] for line in lines if line.endswith("promised")} <= kept
        db.write_now(lambda c: c.execute(installation.delete()).close())
        db.close_now()
    assert ("promised", "refused", "refused") in seen
