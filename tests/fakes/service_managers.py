"""`launchctl` and Windows' service control manager, as they answer, with one service each."""

from __future__ import annotations

import plistlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.host.process import Finished
from agent.services.scm import Scm
from protocol.errors import NotFoundError


class Launchctl:
    """Knows a daemon whose file is in `folder`; `calls` are what it was called with."""

    def __init__(self, folder: Path, label: str = "web") -> None:
        self.label = label
        self.path = folder / f"{label}.plist"
        self.path.write_bytes(
            plistlib.dumps({"Label": label, "ProgramArguments": ["/usr/local/bin/web", "-f"]})
        )
        self.loaded, self.running, self.disabled = False, False, False
        self.ended = "(never exited)"
        self.lingers = 0
        """So many times it is still there after a `bootout`."""
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *argv: str, **options: object) -> Finished:
        self.calls.append(argv)
        del options
        program, verb, *words = argv
        assert program == "launchctl"
        if verb == "print-disabled":
            word = "disabled" if self.disabled else "enabled"
            said = f'\tdisabled services = {{\n\t\t"{self.label}" => {word}\n\t}}\n'
            return Finished(argv, 0, said.encode(), b"")
        if verb == "bootstrap":
            assert words == ["system", str(self.path)]
            if self.disabled:
                return Finished(argv, 119, b"", b"Bootstrap failed: 119: Service is disabled\n")
            self.loaded = True
            return Finished(argv, 0, b"", b"")
        domain, _, label = words[-1].partition("/")
        assert domain == "system"
        if verb == "print" and not self.loaded and self.lingers:
            self.lingers -= 1
        elif not self.loaded or label != self.label:
            if verb in ("enable", "disable"):
                self.disabled = verb == "disable"
                return Finished(argv, 0, b"", b"")
            said = f'Bad request.\nCould not find service "{label}" in domain for system\n'
            return Finished(argv, 113, b"", said.encode())
        return Finished(argv, self._done(verb, words), self._printed().encode(), b"")

    def _done(self, verb: str, words: list[str]) -> int:
        match verb:
            case "kickstart":
                assert words[:-1] in ([], ["-k"])
                self.running = True
            case "bootout":
                self.loaded = self.running = False
                return 36 if self.lingers else 0
            case "enable" | "disable":
                self.disabled = verb == "disable"
            case _:
                assert verb == "print"
        return 0

    def _printed(self) -> str:
        state = "running" if self.running else "not running"
        pid = "\tpid = 812\n" if self.running else ""
        return (
            f"system/{self.label} = {{\n\tpath = {self.path}\n\tstate = {state}\n{pid}"
            f"\tprogram = /usr/local/bin/web\n\tlast exit code = {self.ended}\n}}\n"
        )


class WindowsError(OSError):
    """As `ctypes.WinError` makes it on Windows."""

    def __init__(self, number: int) -> None:
        super().__init__(22, f"what Windows says of {number}")
        self.winerror = number


class FakeScm:
    """Knows one service. Each wait brings a pending change one step further."""

    def __init__(self, name: str = "web", *, steps: int = 2) -> None:
        self.name, self.steps = name, steps
        self.state, self.kind, self.exit_code, self.specific = 1, 3, 1077, 0
        self.shares = False
        self.hangs = False
        """It stays where it is, and its checkpoint too."""
        self.refuses = 0
        """With which error everything but a look is refused."""
        self.waited = 0.0
        self._left, self._goal = 0, 1

    def status(self, name: str) -> bytes:
        self._there(name)
        kind = 0x20 if self.shares else 0x10
        checkpoint = self.steps - self._left
        pid = 812 if self.state not in (1, 2) else 0
        words = (kind, self.state, 1, self.exit_code, self.specific, checkpoint, 2000, pid, 0)
        return struct.pack("<9I", *words)

    def start(self, name: str) -> None:
        self._allowed(name)
        if self.state != 1:
            raise WindowsError(1056)
        if self.kind == 4:
            raise WindowsError(1058)
        self.state, self._left, self._goal, self.exit_code = 2, self.steps, 4, 0

    def stop(self, name: str) -> None:
        self._allowed(name)
        if self.state == 1:
            raise WindowsError(1062)
        self.state, self._left, self._goal = 3, self.steps, 1

    def set_start(self, name: str, kind: int) -> None:
        self._allowed(name)
        self.kind = kind

    def described(self, name: str) -> Mapping[str, Any]:
        if name.lower() != self.name.lower():
            raise NotFoundError(f"this machine has no service {name!r}")
        kinds = {2: "automatic", 3: "manual", 4: "disabled"}
        return {"name": name, "display_name": "The Web", "start_type": kinds[self.kind]}

    def wait(self, seconds: float) -> None:
        self.waited += seconds
        if self.hangs:
            return
        self._left -= 1
        if self._left <= 0:
            self.state = self._goal

    def _there(self, name: str) -> None:
        if name.lower() != self.name.lower():
            raise WindowsError(1060)

    def _allowed(self, name: str) -> None:
        self._there(name)
        if self.refuses:
            raise WindowsError(self.refuses)


_: type[Scm] = FakeScm
