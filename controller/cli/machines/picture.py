"""A machine on one screen, for whoever has its owner on the telephone.

Pure: what is known comes in as plain values, lines of text go out. Made for 80 columns
and 24 lines; a wider terminal gets longer lines, not more of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.text import Text

from controller.cli.output.emit import BAD, GOOD, WARN, printable, render_age, render_bytes
from controller.cli.vault.proved import drill_state, render_drill

LABEL = 9
BAR = 20
LONGEST_NAME = 40
MOST_DISKS = 4
MOST_LINES = 3
ALARM, CAUTION = 90.0, 75.0


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to the machine, with how it ended where that matters."""

    at: datetime | None
    what: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a machine.

    `facts` are sections' facts by name, `live` the live figures of `live_at`; both may
    be empty. `machine` is a record as `stead machine show` prints it.
    """

    machine: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, Any]]
    collected_at: datetime | None
    live: Mapping[str, Any]
    live_at: datetime | None
    changes: Sequence[Happening] = field(default_factory=tuple)
    jobs: Sequence[Happening] = field(default_factory=tuple)


def render_picture(picture: Picture, *, now: datetime, width: int) -> list[Text]:
    """The lines, none longer than `width`."""
    lines = [
        *_who(picture, now, width),
        Text(),
        *_busy(picture),
        *_services(picture),
        *_ports(picture),
        *_state(picture, now),
        *_happenings("changes", picture.changes, now),
        *_happenings("jobs", picture.jobs, now),
    ]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def render_duration(seconds: float) -> str:
    """A length of time in its two largest units.

    >>> render_duration(93784), render_duration(59)
    ('1 d 2 h', '0 min')
    """
    minutes = int(seconds) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def render_bar(percent: float, width: int = BAR) -> Text:
    """A share as a bar, coloured when it is high."""
    full = max(0, min(width, round(percent * width / 100)))
    style = "red" if percent >= ALARM else "yellow" if percent >= CAUTION else "green"
    return Text("█" * full, style=style) + Text("░" * (width - full), style="dim")


def _who(picture: Picture, now: datetime, width: int) -> Iterator[Text]:
    machine, system = picture.machine, picture.facts.get("system", {})
    state = "linked" if machine["linked"] else "not linked"
    if machine["state"] != "active":
        state = str(machine["state"])
    seen = f", seen {render_age(machine['last_seen_at'], now)}"
    left = Text(printable(str(machine["name"])), style="bold") + Text(f"  {machine['tenant']}")
    right = Text(state, style="green" if state == "linked" else "yellow") + Text(seen)
    yield left + Text(" " * max(2, width - len(left) - len(right))) + right
    hardware = system.get("hardware") or {}
    # Facts have the whole truth; the machine's own row has a few words of it, always.
    words = [
        (system.get("os") or {}).get("name") or machine["system"] or "system not known yet",
        system.get("kernel"),
        system.get("arch"),
        " ".join(filter(None, (hardware.get("vendor"), hardware.get("product")))),
    ]
    yield _line(" · ".join(printable(str(word)) for word in words if word))
    yield _line(" · ".join(_network(picture)))
    yield _line(" · ".join(_ages(picture, now)))


def _network(picture: Picture) -> Iterator[str]:
    cpu = picture.facts.get("cpu", {})
    if model := cpu.get("model"):
        yield printable(f"{cpu.get('threads') or '?'} × {str(model)[:LONGEST_NAME]}")
    for interface in picture.facts.get("network", {}).get("interfaces") or ():
        addresses = [a for a in map(str, interface.get("addresses") or ()) if not _is_local(a)]
        if interface.get("up") and addresses:
            yield printable(f"{interface.get('name')} {addresses[0].split('/')[0]}")


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "::1", "fe80:"))


def _ages(picture: Picture, now: datetime) -> Iterator[str]:
    if (up := picture.live.get("uptime_s")) is not None:
        yield f"up {render_duration(up)}"
    logins = picture.facts.get("users", {}).get("logins") or ()
    if names := sorted({printable(str(login.get("name"))) for login in logins}):
        yield f"logged in: {', '.join(names)}"
    if tags := picture.machine["tags"]:
        yield f"tags: {', '.join(map(printable, tags))}"
    yield f"agent {printable(str(picture.machine['agent_version']))}"
    if picture.live_at is not None:
        yield f"figures {render_age(picture.live_at, now)}"


def _busy(picture: Picture) -> Iterator[Text]:
    live = picture.live
    if not live:
        yield _line("no live figures yet: stead snapshot take " + str(picture.machine["name"]))
        return
    if (percent := live.get("cpu_percent")) is not None:
        load = live.get("load") or {}
        said = " ".join(f"{load[n]:.2f}" for n in ("one", "five", "fifteen") if n in load)
        yield _bar("cpu", percent, f"load {said}" if said else "")
    for name in ("memory", "swap"):
        yield from _space(name, live.get(name))
    disks = sorted(live.get("disks") or (), key=lambda disk: -_share(disk.get("space") or {}))
    for disk in disks[:MOST_DISKS]:
        yield from _space(printable(str(disk.get("path"))), disk.get("space"))
    busy = [f"{p.get('name')} {p.get('cpu_percent')} %" for p in (live.get("by_cpu") or ())[:3]]
    big = [
        f"{p.get('name')} {render_bytes(p.get('memory_bytes') or 0)}"
        for p in (live.get("by_memory") or ())[:3]
    ]
    if busy or big:
        said = "; ".join(filter(None, (", ".join(busy), ", ".join(big))))
        yield _labelled("busiest", printable(said))


def _space(name: str, space: Mapping[str, Any] | None) -> Iterator[Text]:
    if space and space.get("total_bytes"):
        used, total = render_bytes(space["used_bytes"]), render_bytes(space["total_bytes"])
        yield _bar(name, _share(space), f"{used} of {total}")


def _share(space: Mapping[str, Any]) -> float:
    total = space.get("total_bytes") or 0
    return 100 * (space.get("used_bytes") or 0) / total if total else 0.0


def _services(picture: Picture) -> Iterator[Text]:
    failed = picture.live.get("failed_services")
    if failed is None:
        services = picture.facts.get("services", {}).get("services")
        if services is None:
            return
        failed = [str(s.get("name")) for s in services if s.get("state") == "failed"]
    if failed:
        names = printable(", ".join(map(str, failed)))
        yield _labelled("services", f"{len(failed)} failed: {names}", style="red")
    else:
        yield _labelled("services", "none failed", style="green")


def _ports(picture: Picture) -> Iterator[Text]:
    said: dict[tuple[Any, Any], set[str]] = {}
    for row in picture.facts.get("ports", {}).get("ports") or ():
        key = (row.get("port"), row.get("protocol"))
        said.setdefault(key, set()).update(map(str, row.get("programs") or ()))
    if said:
        ports = [
            f"{port}/{protocol}" + (f" {'+'.join(sorted(programs))}" if programs else "")
            for (port, protocol), programs in sorted(said.items(), key=lambda p: str(p[0][0]))
        ]
        yield _labelled("listening", printable(", ".join(ports)))


def _state(picture: Picture, now: datetime) -> Iterator[Text]:
    updates, security = picture.machine["updates"], picture.machine["security_updates"]
    if updates is None:
        yield _labelled("updates", "not scanned yet", style="yellow")
    else:
        words = f"{updates} on offer" + (f", {security} for security" if security else "")
        yield _labelled("updates", words, style="red" if security else "green")
    backup = picture.machine["last_point_at"]
    line = _labelled("backup", render_age(backup, now), style="yellow" if backup is None else "")
    if state := drill_state(picture.machine, now):
        line.append(" · drill ")
        line.append(render_drill(picture.machine, now), style=_style(state))
    yield line
    if reasons := picture.machine["frozen"]:
        words = f"frozen, nothing is forgotten: {'; '.join(map(str, reasons))}"
        yield _labelled("", printable(words), style="red")


def _happenings(label: str, found: Sequence[Happening], now: datetime) -> Iterator[Text]:
    for number, one in enumerate(found[:MOST_LINES]):
        line = _labelled(label if number == 0 else "", f"{render_age(one.at, now):<11} ")
        line.append(printable(one.what))
        if one.state:
            line.append(f": {one.state}", style=_style(one.state))
        yield line


def _style(state: str) -> str:
    return (
        "green" if state in GOOD else "yellow" if state in WARN else "red" if state in BAD else ""
    )


def _bar(label: str, percent: float, words: str) -> Text:
    line = _labelled(label, f"{percent:5.1f} % ")
    line.append_text(render_bar(percent))
    return line.append(f"  {words}")


def _labelled(label: str, words: str, *, style: str = "") -> Text:
    name = label if len(label) <= LABEL else label[: LABEL - 1] + "…"
    return Text.assemble((f"{name:<{LABEL}} ", "bold"), (words, style))


def _line(words: str) -> Text:
    return Text(words)
