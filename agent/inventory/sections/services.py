"""Services: whether they start by themselves, and whether they run.

Sources: `systemctl list-units` and `list-unit-files` where systemd is the init (JSON
since release 246, a table before); otherwise the scripts in `/etc/init.d`, their start
links in `/etc/rc?.d`, and process id files.

What comes and goes by design is evened out, so that a quiet machine stays the same:
a `static` unit (started by a timer, a bus or another unit) is `on demand` unless it
failed; one on its way up or down is `stopped`; units made for one log-in or one
command are left out.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources, decode
from protocol.errors import UNREADABLE, UnavailableError

BOOTED_BY_SYSTEMD = "/run/systemd/system"
LIST = (
    "--type=service",
    "--all",
    "--output=json",
    "--plain",
    "--full",
    "--no-legend",
    "--no-pager",
)
INIT_D = "/etc/init.d"
NOT_SERVICES = re.compile("README|functions|rcS?|halt|killall|reboot|single|skeleton|\\..*")

_PASSING = re.compile(r"(?:user|user-runtime-dir|systemd-coredump|drkonqi-coredump-processor)@.+")
_START_LINK = re.compile(r"S\d\d(.+)")

State = Literal["running", "done", "on demand", "stopped", "restarting", "failed", "unknown"]


class Service(msgspec.Struct, frozen=True, order=True):
    """`start` is systemd's word (enabled, disabled, static, masked …), or unknown."""

    name: str
    start: str
    state: State
    description: str


class Services(Facts, frozen=True, kw_only=True):
    """Services by name, and who said so."""

    source: Literal["systemd", "init.d", "windows", "launchd"]
    services: list[Service]


def parse_units(output: str) -> list[tuple[str, str, str, str, str]]:
    """(unit, load, active, sub, description) per unit that `systemctl list-units` prints."""
    if output.lstrip().startswith("["):
        keys = ("unit", "load", "active", "sub", "description")
        return [tuple(str(row[key]) for key in keys) for row in _rows(output)]  # type: ignore[misc]
    found = []
    for line in output.splitlines():
        words = line.lstrip("●*× ").split(None, 4)
        if len(words) >= 4:
            unit, load, active, sub, *rest = words
            found.append((unit, load, active, sub, rest[0].strip() if rest else ""))
    return found


def parse_unit_files(output: str) -> dict[str, str]:
    """How each unit is started, by name, from `systemctl list-unit-files`."""
    if output.lstrip().startswith("["):
        return {str(row["unit_file"]): str(row["state"]) for row in _rows(output)}
    rows = (line.split() for line in output.splitlines())
    return {words[0]: words[1] for words in rows if len(words) >= 2}


def _rows(output: str) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(output, type=list[dict[str, Any]])
    except UNREADABLE as error:
        raise UnavailableError(f"systemctl printed something unknown: {error}") from error


def services_of(units: str, unit_files: str) -> list[Service]:
    """What the two lists of systemctl say together; raises `UnavailableError`."""
    starts = parse_unit_files(unit_files)
    found = {}
    try:
        for unit, load, active, sub, description in parse_units(units):
            start = starts.get(unit) or starts.get(_template(unit), "unknown")
            if load == "loaded" or active != "inactive":
                found[unit] = Service(
                    _plain(unit), start, state_of(start, active, sub), description
                )
    except KeyError as error:
        raise UnavailableError(f"systemctl left out the column {error}") from error
    for unit, start in starts.items():
        if unit not in found and not unit.endswith("@.service") and start != "alias":
            state: State = "on demand" if start == "static" else "stopped"
            found[unit] = Service(_plain(unit), start, state, "")
    kept = (item for item in found.values() if item.start != "transient")
    return sorted(item for item in kept if not _PASSING.fullmatch(item.name))


def _template(unit: str) -> str:
    return re.sub(r"@.*\.service\Z", "@.service", unit)


def _plain(unit: str) -> str:
    return unit.removesuffix(".service")


def state_of(start: str, active: str, sub: str) -> State:
    """One word for systemd's active and sub state; see the top for what is evened out.

    >>> state_of("enabled", "active", "running"), state_of("static", "inactive", "dead")
    ('running', 'on demand')
    """
    if active == "failed":
        return "failed"
    if sub.startswith("auto-restart"):
        return "restarting"
    if start in ("static", "indirect"):
        return "on demand"
    if active in ("active", "reloading", "refreshing"):
        return "done" if sub == "exited" else "running"
    return "stopped"


def collect(sources: Sources) -> Services:
    """Ask systemd, else read the scripts; raises `UnavailableError` where neither is here."""
    if sources.exists(BOOTED_BY_SYSTEMD):
        units = sources.run("systemctl", "list-units", *LIST).checked()
        files = sources.run("systemctl", "list-unit-files", *LIST).checked()
        return Services(source="systemd", services=services_of(decode(units), decode(files)))
    if not sources.exists(INIT_D):
        raise UnavailableError(f"systemd does not run here and there is no {INIT_D}")
    levels = [level for level in "S2345" if sources.exists(f"/etc/rc{level}.d")]
    links = {link for level in levels for link in sources.listed(f"/etc/rc{level}.d")}
    started = {match[1] for match in map(_START_LINK.fullmatch, links) if match}
    otherwise = "disabled" if levels else "unknown"
    services = [
        Service(
            name=name,
            start="enabled" if name in started else otherwise,
            state=_running(sources, name),
            description=parse_lsb_description(sources.text(f"{INIT_D}/{name}")),
        )
        for name in sources.listed(INIT_D)
        if not NOT_SERVICES.fullmatch(name)
    ]
    gaps = {"state": "without systemd only process id files tell: 'unknown' means there is none"}
    return Services(source="init.d", services=sorted(services), gaps=gaps)


def parse_lsb_description(script: str) -> str:
    """The short description in the LSB comment of an init script, or nothing."""
    found = re.search(r"^# Short-Description:[ \t]*(.*)$", script, re.MULTILINE)
    return found[1].strip() if found else ""


def _running(sources: Sources, name: str) -> State:
    bare = name.removesuffix(".sh")
    for path in (
        f"/run/{bare}.pid",
        f"/run/{bare}d.pid",
        f"/run/{bare}/pid",
        f"/run/{bare}/{bare}.pid",
    ):
        pid = sources.number(path)
        if pid is not None:
            return "running" if sources.exists(f"/proc/{pid}/stat") else "stopped"
    return "unknown"


SECTION = Section("services", 1, collect, every_s=300)
