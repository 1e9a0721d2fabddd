"""The agent as it is packaged: built once for the same sources, and shared by all tests."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.agent_process import AgentProcess

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "package-test"
MADE_OF = ("agent", "protocol", "packaging")
ALSO = ("requirements/agent.lock", "pyproject.toml", "docs/guide/install.md")
KEPT = 2  # builds, since another run of the tests may use the one before
NEEDED = ("objcopy", "objdump", "strip", "patchelf", "dpkg-deb")


@dataclass(frozen=True)
class Built:
    """What `make package` makes."""

    folder: Path
    package: Path

    @property
    def program(self) -> Path:
        return self.folder / "stead-agent"


class BuiltAgent(AgentProcess):
    """The built program with a home of its own."""

    def __init__(self, directory: Path, program: Path) -> None:
        super().__init__(directory)
        self._program = program

    def _argv(self, *words: str) -> list[str]:
        return [str(self._program), "--home", str(self.directory), *words]


def build() -> Built:
    """Build, unless these very sources are built already."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        pytest.skip(f"not run: needs {', '.join(absent)}; packaging/linux/test-tools.sh")
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        into = PLACE / _fingerprint()
        if not (into / "whole").exists():
            shutil.rmtree(into, ignore_errors=True)
            command = [sys.executable, str(ROOT / "packaging/build.py"), "--into", str(into)]
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            shutil.rmtree(into / "build")
            (into / "whole").touch()
        builds = sorted(PLACE.glob("*/whole"), key=lambda path: path.stat().st_mtime)
        for old in builds[:-KEPT]:
            if old.parent != into:
                shutil.rmtree(old.parent)
    [package] = (into / "dist").glob("*.deb")
    return Built(into / "dist" / "stead-agent", package)


def _fingerprint() -> str:
    """A hash over everything that ends up in the build."""
    files = [ROOT / name for name in ALSO]
    for folder in MADE_OF:
        found = (ROOT / folder).rglob("*")
        files += (p for p in found if p.is_file() and "__pycache__" not in p.parts)
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
