"""Name what apt and dpkg complain about.

Pure. The sentences are those of apt 1.6 to 3.0 and dpkg 1.19 to 1.22 in the C locale.
"""

from __future__ import annotations

import re

from agent.patching.errors import (
    DependenciesBrokenError,
    DiskFullError,
    ManagerFailedError,
    PackagesInterruptedError,
    PackagesLockedError,
    RemovalRefusedError,
    RepositoryUnreachableError,
    RepositoryUntrustedError,
)
from protocol.errors import SteadError

REPAIR = "dpkg --configure -a"
MESSAGE_CHARS = 400

_LOCK = re.compile(
    r"Could not get lock (\S+?)\.? (?:It is held by (process \d+(?: \([^)]*\))?)|- open)"
    r"|lock (?:was|is) locked by another process(?: with (pid \d+))?"
)
_DPKG_FAILED = re.compile(r"Sub-process \S*dpkg (?:returned an error code|received )")
_INTERRUPTED = re.compile(r"dpkg was interrupted, you must manually run")
_FULL = re.compile(r"No space left on device|don't have enough free space in|Disk quota exceeded")
_UNTRUSTED = re.compile(
    r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|EXPSIG|signatures? (?:were|was) invalid"
    r"|(?:is|are) not signed|no longer signed|couldn't be verified|cannot be authenticated"
    r"|Release file for \S+ (?:is expired|expired|is not valid yet)|Hash Sum mismatch"
    r"|changed its '\w+' value|File has unexpected size|Missing key"
    r"|Sub-process /usr/bin/sqv returned"
)
_UNREACHABLE = re.compile(
    r"Failed to fetch|Could not resolve|Could not connect|Unable to connect|Cannot initiate"
    r"|does not have a Release file|no longer has a Release file|404 +Not Found|File not found"
    r"|Some index files failed to download|Unable to fetch some archives"
)
_REMOVAL = re.compile(r"Packages need to be removed but remove is disabled")
_BROKEN = re.compile(
    r"unmet dependencies|held broken packages|Unable to correct problems|Version '.*' was not found"
    r"|Unable to satisfy dependencies"
)


def classify(log: str) -> SteadError:
    """The error that best names why a program of apt's failed, by what it printed.

    Trust comes before reach, since apt reports a refused signature as a failed fetch
    too; a full disk before both, since it makes every download fail. Once dpkg ran,
    what a package's script printed may look like anything, and only a full disk counts.
    """
    if _DPKG_FAILED.search(log):
        full = _line(_FULL, log)
        return DiskFullError(full) if full else ManagerFailedError(f"dpkg failed: {_said(log)}")
    lock = _LOCK.search(log)
    if lock:
        holder = lock.group(2) or lock.group(3) or "another process"
        return PackagesLockedError(f"{holder}{f' ({lock.group(1)})' if lock.group(1) else ''}")
    if _INTERRUPTED.search(log):
        return PackagesInterruptedError((), REPAIR)
    if said := _line(_FULL, log):
        return DiskFullError(said)
    if said := _line(_UNTRUSTED, log):
        return RepositoryUntrustedError(said)
    if said := _line(_UNREACHABLE, log):
        return RepositoryUnreachableError(said)
    if _REMOVAL.search(log):
        return RemovalRefusedError(())
    if _BROKEN.search(log):
        return DependenciesBrokenError(_said(log))
    return ManagerFailedError(f"apt-get failed: {_said(log)}")


def _line(pattern: re.Pattern[str], log: str) -> str:
    """The line that matches, an error's rather than a warning's or a progress line's."""
    lines = [line.strip() for line in log.splitlines() if pattern.search(line)]
    lines.sort(key=lambda line: (not line.startswith("E:"), not line.startswith("W:")))
    return _bare(lines[0]) if lines else ""


def _said(log: str) -> str:
    """apt's own errors, or the end of what it printed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:") or re.match(r".+ : \w+:", line)]
    return "; ".join(map(_bare, errors or lines[-3:]))[:MESSAGE_CHARS] or "no message"


def _bare(line: str) -> str:
    """A message that can stand in a sentence of ours: without apt's letter and full stop."""
    return re.sub(r"^[EW]: ", "", line)[:MESSAGE_CHARS].rstrip(".")


def step_failure(log: str, package: str) -> str:
    """What dpkg said of one package, empty when it said nothing.

    dpkg prints "error processing package NAME (--configure):" or "error processing
    archive PATH (--unpack):" and the reason on the next line.
    """
    name = re.escape(package.partition(":")[0])
    found = re.search(
        rf"dpkg: error processing (?:package {name}(?::\S+)?|archive \S*/{name}_\S+) "
        r"\(--\w+\):\n (.+)",
        log,
    )
    return found.group(1).strip()[:MESSAGE_CHARS] if found else ""
