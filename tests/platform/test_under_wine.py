"""The agent's calls to Windows, as Wine answers them. Wine is not Windows.

Needs wine64, and in $STEAD_WINDOWS_PYTHON a python.exe for Windows that imports what
requirements/agent.lock names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = os.environ.get("STEAD_WINDOWS_PYTHON", "")
WINE = shutil.which("wine64", path=f"{os.environ.get('PATH', '')}:/usr/lib/wine")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not PYTHON or WINE is None, reason="not run: needs wine64 and $STEAD_WINDOWS_PYTHON"
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `under_wine.py` says, in a Windows of its own."""
    prefix = tmp_path_factory.mktemp("wine") / "prefix"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEAD_")},
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=;mshtml=",
        "PYTHONPATH": f"Z:{ROOT}".replace("/", "\\"),
        "TZ": "Europe/Berlin",
    }
    assert WINE is not None
    done = subprocess.run(
        [WINE, PYTHON, "-m", "tests.platform.under_wine"],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=110,
    )
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(lines[-1])


def test_programs_end_with_their_code_and_get_their_arguments_whole(told: Any) -> None:
    assert told["code"] == 7
    assert told["echo"].strip() == r"""['a b', 'q"', 'x\\', '']"""
    assert told["late"] == "timed_out"
    assert told["nowhere"] == "precondition"


def test_a_grandchild_does_not_outlive_its_order(told: Any) -> None:
    assert told["family"] == {"born": True, "lives": False, "missed": []}


def test_files_are_bytes_locks_are_held_and_folders_are_private(told: Any) -> None:
    assert told["files"] == {
        "content": b"1\r\n3".hex(),
        "held": [True, "locked"],
        "released": True,
        "others": [],
        "owner": True,
        "pruned": 0,
    }


def test_a_service_goes_up_and_down(told: Any) -> None:
    states = ["stopped", "running", "running", "running", "stopped", "stopped"]
    assert told["services"] == {"states": states, "missing": "not_found"}


def test_the_machine_is_told_apart_and_knows_its_zone(told: Any) -> None:
    assert told["hardware"] == 32
    assert told["zone"]
