"""A new controller's files, copied from what was made once in this process.

Making a database runs every migration, which takes longer than most tests that want one.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from controller import clock
from controller.authority.init import Initialised, initialise
from controller.config import ControllerHome, OperatorHome, RootHome
from controller.db.database import Database


def new_database(path: Path) -> str:
    """The URL of a database as `Database.open(create=True)` makes one."""
    path.write_bytes(_database())
    return f"sqlite:///{path}"


def new_installation(home: Path) -> Initialised:
    """An installation as `initialise` makes one on free ports of this machine; keys repeat."""
    kept, pin = _installation()
    for name, content in kept.items():
        target = home / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o600)
    made = Initialised(
        RootHome(home / "root"),
        ControllerHome(home / "controller"),
        OperatorHome(home / "operator"),
        pin,
    )
    made.operator.tenants.mkdir(mode=0o700)
    return made


@cache
def _database() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "stead.db"
        Database.open(f"sqlite:///{path}", create=True).close_now()
        return path.read_bytes()


@cache
def _installation() -> tuple[dict[Path, bytes], bytes]:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        made = initialise(
            home,
            names=["127.0.0.1", "localhost"],
            now=clock.now(),
            listen="127.0.0.1:0",
            enroll_listen="127.0.0.1:0",
        )
        files = [path for path in home.rglob("*") if path.is_file()]
        return {path.relative_to(home): path.read_bytes() for path in files}, made.pin
