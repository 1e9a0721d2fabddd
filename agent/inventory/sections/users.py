"""Who is logged in, where, from where, since when.

Sources: systemd-logind's files in `/run/systemd/sessions` (the ones libsystemd itself
reads, with assignments as in os-release(5)), else utmp(5).
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Literal

import msgspec

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources
from protocol.errors import UnavailableError

LOGIND = "/run/systemd/sessions"
BOOTED_BY_SYSTEMD = "/run/systemd/system"
UTMP = ("/run/utmp", "/var/run/utmp")
USER_PROCESS = 7
PEOPLE = frozenset({"user", "user-early", "user-incomplete"})

# type, pid, line, id, user, host, exit, session, seconds, microseconds, address, spare
_NARROW = struct.Struct("=h2xi32s4s32s256s4siii16s20s")
_WIDE = struct.Struct("=h2xi32s4s32s256s4sqqq16s20s4x")


class Login(msgspec.Struct, frozen=True, order=True):
    """A person at a terminal or a desktop; `origin` is where a remote one came from."""

    name: str
    terminal: str
    origin: str | None
    since: str


class Users(Facts, frozen=True, kw_only=True):
    """Log-ins by name, terminal, origin."""

    source: Literal["logind", "utmp", "psutil"]
    logins: list[Login]


def parse_logind(text: str) -> Login | None:
    """One log-in; None for a greeter, a manager or another one that is no person."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if fields.get("CLASS", "user") not in PEOPLE or fields.get("STATE") == "closing":
        return None
    microseconds = fields.get("REALTIME", "")
    return Login(
        name=fields.get("USER") or fields.get("UID", ""),
        terminal=fields.get("TTY") or fields.get("DISPLAY") or fields.get("TYPE", ""),
        origin=fields.get("REMOTE_HOST") or None,
        since=_at(int(microseconds) // 1_000_000 if microseconds.isdecimal() else 0),
    )


def parse_utmp(content: bytes, *, arch: str) -> list[tuple[int, Login]]:
    """(process id, log-in) per record of a person; the record is wider on 64-bit ARM.

    Raises `UnavailableError` when the file does not consist of whole records.
    """
    layout = _WIDE if arch in ("aarch64", "arm64") else _NARROW
    if len(content) % layout.size:
        raise UnavailableError(f"utmp has {len(content)} bytes, no multiple of {layout.size}")
    found = []
    for kind, pid, line, _, name, origin, _, _, seconds, _, _, _ in layout.iter_unpack(content):
        if kind == USER_PROCESS and _text(name):
            login = Login(_text(name), _text(line), _text(origin) or None, _at(seconds))
            found.append((pid, login))
    return found


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _at(seconds: int) -> str:
    if not 0 <= seconds < 1 << 33:
        return "unknown"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def collect(sources: Sources) -> Users:
    """Ask logind's files, else utmp without the records whose process has ended."""
    if sources.exists(BOOTED_BY_SYSTEMD) and sources.exists(LOGIND):
        texts = [
            sources.text(f"{LOGIND}/{name}")
            for name in sources.listed(LOGIND)
            if not name.endswith(".ref") and not name.startswith(".")
        ]
        logins = [login for login in map(parse_logind, texts) if login is not None]
        return Users(source="logind", logins=sorted(logins, key=_key))
    for path in UTMP:
        if sources.exists(path):
            content = sources.text(path).encode("utf-8", "surrogateescape")
            records = parse_utmp(content, arch=sources.arch)
            alive = [login for pid, login in records if sources.exists(f"/proc/{pid}/stat")]
            return Users(source="utmp", logins=sorted(alive, key=_key))
    raise UnavailableError("neither systemd-logind nor utmp keeps a record of log-ins here")


def _key(login: Login) -> tuple[str, str, str, str]:
    return (login.name, login.terminal, login.origin or "", login.since)


SECTION = Section("users", 1, collect, every_s=300)
