"""Read what several have about the audit logs: exports, witness files, saved answers.

Only what the installation's controller signed counts, whoever brings it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from controller.audit.trail import Mark
from controller.cli.audit.file import LONGEST_LINE, Header, StatementLine, read_lines
from controller.cli.audit.heads import SeenHeads
from controller.cli.audit.offline import open_header
from protocol.checkpoint import Found, open_checkpoint
from protocol.errors import InvalidError, SteadError
from protocol.witness import (
    Alarm,
    decode_statement,
    decode_watched,
    open_statement,
)


@dataclass(frozen=True, slots=True)
class Told:
    """One checkpoint that somebody has. `export` says that the file is the log up to it."""

    mark: Mark
    file: Path
    export: bool = False


@dataclass(slots=True)
class Gathered:
    """All that was read. `alarms` are words about what no checkpoint can show."""

    told: list[Told] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    def of_log(self, log: str) -> list[Told]:
        """What was said about one log."""
        return [one for one in self.told if one.mark.checkpoint.log == log]

    def logs(self) -> list[str]:
        """All logs about which something was said."""
        return sorted({one.mark.checkpoint.log for one in self.told})


def gather(files: Sequence[Path], root: x509.Certificate, seen: SeenHeads) -> Gathered:
    """Read all files, and what this profile keeps; INVALID for one that is none of these."""
    found = Gathered()
    for file, signed in seen.signed():
        what = "your profile" if file.suffix == ".checkpoint" else "your profile was told"
        found.told.append(Told(Mark(open_checkpoint(signed, root), what), file))
    for file in files:
        _read(found, file, root)
    return found


def _read(found: Gathered, file: Path, root: x509.Certificate) -> None:
    data = _beginning(file)
    if data.lstrip().startswith(b'{"kept"'):
        try:
            watched = decode_watched(data)
        except InvalidError as error:
            raise InvalidError(f"{file}: {error}") from error
        alarms = [alarm for _, alarm in watched.each_alarm()]
        _machine(found, file, file.name, [*watched.kept.values()], alarms, root)
        return
    lines = read_lines(file)
    first = next(lines, None)
    if isinstance(first, Header):
        _, newest = open_header(file, first, root)
        found.told.append(Told(Mark(newest, str(file)), file, export=True))
    elif isinstance(first, StatementLine):
        for line in (first, *lines):
            if not isinstance(line, StatementLine):
                raise InvalidError(f"{file} has a line that is no machine's answer")
            _statement(found, file, line, root)
    else:
        raise InvalidError(f"{file} is neither an export nor what a machine keeps or answered")


def _statement(found: Gathered, file: Path, line: StatementLine, root: x509.Certificate) -> None:
    signed = line.signed()
    said = decode_statement(signed.body)
    # It answered a question of then, which nobody asks again: its own word names the time.
    statement = open_statement(
        signed,
        root=root,
        machine=said.machine,
        tenant=said.tenant,
        nonce=said.nonce,
        now=said.at,
    )
    _machine(found, file, line.name, statement.kept, statement.alarms, root)


def _machine(
    found: Gathered,
    file: Path,
    name: str,
    kept: Sequence[bytes],
    alarms: Sequence[Alarm],
    root: x509.Certificate,
) -> None:
    for data in kept:
        found.told.append(Told(Mark(open_checkpoint(data, root), f"{name} keeps"), file))
    for alarm in alarms:
        at = f"{alarm.at:%Y-%m-%d %H:%M:%S}Z"
        if alarm.found is Found.LOST:
            found.alarms.append(f"{name}: what it kept before {at} is lost")
        for data, what in ((alarm.kept, "kept"), (alarm.told, "was told")):
            if not data:
                continue
            try:
                mark = Mark(open_checkpoint(data, root), f"{name} {what} at {at}")
                found.told.append(Told(mark, file))
            except SteadError as error:
                found.alarms.append(f"{name} {what} at {at} what was not signed: {error}")


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.readline(LONGEST_LINE)
    except OSError as error:
        raise SteadError(f"{file} cannot be read: {error.strerror}") from error
