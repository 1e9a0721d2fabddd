"""Services of macOS: the daemons of launchd's system domain, by `launchctl`.

To stop one is to take it out of launchd until it is started again or the machine is: what
launchd keeps alive or starts on demand would come back at once otherwise. What `launchctl
print` prints is meant for people, and its manual says that it may change: only lines of
its first level are read, and a line that is not there is not made up.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from agent.host.launchd import NOT_THERE, parse_disabled, take_out
from agent.host.process import Finished, Run
from agent.services.manager import ServiceError, Status
from protocol.errors import InvalidError, NotFoundError

FOLDERS = (Path("/Library/LaunchDaemons"), Path("/System/Library/LaunchDaemons"))
DAY_S = 86_400.0
GONE_WITHIN_S = 30.0
PLIST_BYTES = 1024 * 1024

_LABEL = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.:@+() -]{0,249}")
_PAIR = re.compile(r"\t([a-z ]+) = (.*)")
_STATES = {"running": "running", "spawn scheduled": "restarting", "not running": "stopped"}


def parse_print(output: str) -> dict[str, str]:
    """The values of the first level that `launchctl print system/LABEL` prints.

    >>> parse_print("system/a = {\\n\\tpid = 7\\n\\tsockets = {\\n\\t\\tstate = x\\n\\t}\\n}")
    {'pid': '7'}
    """
    pairs = filter(None, map(_PAIR.fullmatch, output.splitlines()))
    return {pair[1]: pair[2] for pair in pairs if pair[2] != "{"}


def state_of(printed: Mapping[str, str]) -> tuple[str, str]:
    """One word for what launchd says of a loaded service, and what is left to say.

    >>> state_of({"state": "not running", "last exit code": "78: EX_CONFIG"})
    ('failed', 'exit code 78: EX_CONFIG')
    """
    said = printed.get("state", "")
    state = _STATES.get(said, said or "unknown")
    ended = printed.get("last exit code", "(never exited)")
    by_signal = printed.get("last terminating signal", "")
    if state != "stopped":
        return state, ""
    if by_signal:
        return "failed", f"ended by signal {by_signal}"
    if ended == "(never exited)":
        return "stopped", ""
    return ("done", "") if ended.partition(":")[0] == "0" else ("failed", f"exit code {ended}")


@dataclass(frozen=True, slots=True)
class Launchd:
    """See `ServiceManager`. `memory` is how many bytes a process has; `wait` takes seconds."""

    run: Run
    memory: Callable[[int], int | None]
    wait: Callable[[float], None]
    folders: Sequence[Path] = FOLDERS

    def checked_name(self, name: str) -> str:
        """See `ServiceManager`."""
        if not _LABEL.fullmatch(name):
            raise InvalidError(f"{name[:80]!r} cannot be the label of a service")
        return name

    def show(self, names: Sequence[str]) -> list[Status]:
        """See `ServiceManager`."""
        switches = self.run("launchctl", "print-disabled", "system").checked()
        disabled = parse_disabled(switches.decode(errors="replace"))
        return [self._status(name, disabled) for name in names]

    def _status(self, name: str, disabled: Mapping[str, bool]) -> Status:
        printed = self._printed(name)
        path = self._path(name, printed)
        plist = read_plist(path) if path is not None else {}
        by_file = bool((plist or {}).get("Disabled", False))
        state, detail = state_of(printed) if printed is not None else ("stopped", "not loaded")
        pid = (printed or {}).get("pid", "")
        number = int(pid) if pid.isdecimal() and pid.isascii() else 0
        return Status(
            name=name,
            description=(printed or {}).get("program", "") or program_of(plist or {}),
            state=state,
            start="disabled" if disabled.get(name, by_file) else "enabled",
            detail=detail,
            pid=number,
            memory_bytes=self.memory(number) if number else None,
        )

    def _printed(self, name: str) -> dict[str, str] | None:
        """What launchd says of a service; None when it has not loaded it."""
        done = self.run("launchctl", "print", f"system/{name}")
        if done.code == NOT_THERE:
            return None
        return parse_print(done.checked().decode(errors="replace"))

    def _path(self, name: str, printed: Mapping[str, str] | None) -> Path | None:
        """The file that describes a service; None when launchd has it from elsewhere.

        Raises `NotFoundError` when neither launchd nor a folder knows it.
        """
        if printed is not None:
            path = Path(printed.get("path", ""))
            return path if path.is_absolute() else None
        for path in self._candidates(name):
            if (read_plist(path) or {}).get("Label") == name:
                return path
        raise NotFoundError(f"this machine has no service {name!r}")

    def _candidates(self, name: str) -> Iterator[Path]:
        """Files that may describe it: the one with its name first."""
        for folder in self.folders:
            yield folder / f"{name}.plist"
        for folder in self.folders:
            yield from sorted(folder.glob("*.plist"))

    def act(self, verb: str, name: str) -> None:
        """See `ServiceManager`."""
        target = f"system/{name}"
        if verb in ("enable", "disable"):
            self._tell(verb, target)
            return
        loaded = self._printed(name)
        path = self._path(name, loaded)
        if verb == "stop":
            if loaded is not None:
                take_out(self.run, name, within_s=GONE_WITHIN_S, wait=self.wait)
            return
        if loaded is None:
            self._tell("bootstrap", "system", str(path))
        anew = ("-k",) if verb == "restart" and loaded is not None else ()
        self._tell("kickstart", *anew, target)

    def _tell(self, *words: str) -> None:
        done = self.run("launchctl", *words, timeout=DAY_S)
        if done.code:
            raise ServiceError(f"launchctl {words[0]} ended with {done.code}: {_said(done)}")


def read_plist(path: Path) -> dict[str, Any] | None:
    """A property list that is a dictionary; None when there is none that can be read."""
    try:
        with path.open("rb") as file:
            found = plistlib.loads(file.read(PLIST_BYTES))
    except (OSError, ValueError, AttributeError, ExpatError, plistlib.InvalidFileException):
        # AttributeError is plistlib's word for a date that is none.
        return None
    return found if isinstance(found, dict) else None


def program_of(plist: Mapping[str, Any]) -> str:
    """The program that a description of a service names."""
    words = plist.get("ProgramArguments") or ()
    first = words[0] if isinstance(words, list) and words else ""
    return str(plist.get("Program") or first)


def _said(done: Finished) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return " ".join(text.split())[-1000:]
