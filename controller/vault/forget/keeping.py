"""Keep and forget restore points: acts of operators, and of the controller by the rules.

Functions of a connection, each whole in one transaction with its entry in the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select

from controller.audit.log import append
from controller.db.schema import (
    damages,
    forgotten_points,
    lost_chunks,
    machines,
    point_holds,
    point_tags,
    points,
    retention_rules,
)
from controller.db.upsert import upsert
from controller.fleet.names import check_tags
from controller.vault.alarm import Alarm
from controller.vault.forget import forgotten
from controller.vault.forget.retention import (
    Candidate,
    Rules,
    Verdict,
    keeps_anything,
    parse_zone,
    plan_forgetting,
)
from controller.vault.freezing import Machine, alarm_of, check_reason, frozen, note_freeze
from controller.vault.hits import decode_hit
from protocol.errors import UNREADABLE, Code, InvalidError, NotFoundError, SteadError


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a machine's restore points, and why nothing is forgotten if it is not."""

    rules: Rules | None
    is_inherited: bool
    verdicts: Sequence[Verdict]
    alarm: Alarm | None

    @property
    def doomed(self) -> list[Verdict]:
        """What would be forgotten now."""
        return [] if self.alarm else [one for one in self.verdicts if not one.is_kept]


def parse_rules(text: str) -> Rules:
    """Rules from JSON; INVALID for anything else."""
    try:
        rules = msgspec.json.decode(text, type=Rules)
    except UNREADABLE as error:
        raise InvalidError(f"these are no retention rules: {error}") from error
    parse_zone(rules.zone)
    check_tags(sorted(rules.tags))
    if not keeps_anything(rules):
        raise InvalidError("rules must keep something; say at least one, such as --daily 14")
    return rules


def set_rules(
    connection: Connection,
    tenant: str,
    machine: str,
    rules: Rules | None,
    *,
    actor: str,
    at: datetime,
) -> None:
    """Put rules in force for a machine, or with an empty one for the tenant; None ends them."""
    connection.execute(
        delete(retention_rules).where(
            retention_rules.c.tenant_id == tenant, retention_rules.c.machine_id == machine
        )
    )
    text = "" if rules is None else msgspec.json.encode(rules).decode()
    if rules is not None:
        connection.execute(
            insert(retention_rules),
            {
                "tenant_id": tenant,
                "machine_id": machine,
                "rules": text,
                "set_by": actor,
                "set_at": at,
            },
        )
    body = {"machine": machine, "rules": text}
    append(connection, tenant, actor, "retention_rules_set", body, at)


def plan(
    connection: Connection, machine: Machine, now: datetime, instead: Rules | None = None
) -> Plan:
    """Judge every restore point of a machine, by its rules or by others. Changes nothing."""
    rules, is_inherited = (instead, False) if instead else _rules_of(connection, machine)
    candidates = _candidates(connection, machine)
    verdicts = plan_forgetting(candidates, rules or Rules(), now=now)
    return Plan(rules, is_inherited, verdicts, alarm_of(connection, machine))


def forget_by_rules(
    connection: Connection, machine: Machine, *, actor: str, at: datetime
) -> list[str]:
    """Forget what no rule keeps. A freeze is noted, and then nothing is forgotten."""
    made = plan(connection, machine, at)
    if made.alarm is not None:
        note_freeze(connection, machine, made.alarm, at)
        return []
    return _forget(
        connection, machine, [v.point for v in made.doomed], "no rule keeps it", actor, at
    )


def forget_named(
    connection: Connection,
    machine: Machine,
    named: Sequence[str],
    reason: str,
    *,
    actor: str,
    at: datetime,
) -> list[str]:
    """Forget these points, unless `check_forgetting` refuses."""
    check_reason(reason)
    named = check_forgetting(connection, machine, named, at)
    return _forget(connection, machine, named, reason, actor, at)


def check_forgetting(
    connection: Connection, machine: Machine, named: Sequence[str], at: datetime
) -> list[str]:
    """These points, each once; refused for what is held, the newest, and below the floor."""
    made = plan(connection, machine, at)
    if made.alarm is not None:
        raise frozen(made.alarm)
    candidates = {one.id: one for one in _candidates(connection, machine)}
    for point in named:
        if point not in candidates:
            raise NotFoundError(f"the machine has no restore point {point[:80]!r}")
        if candidates[point].hold:
            raise SteadError(
                f"{point} is on hold ({candidates[point].hold}); release it first",
                code=Code.PRECONDITION,
            )
    if made.verdicts and made.verdicts[0].point in named:
        raise SteadError(
            f"{made.verdicts[0].point} is the newest, which the next backup follows; it stays",
            code=Code.PRECONDITION,
        )
    floor = (made.rules or Rules()).floor
    left = [one for one in candidates.values() if one.id not in named and not one.fault]
    if len(left) < floor and any(not candidates[point].fault for point in named):
        raise SteadError(
            f"{len(left)} good restore points would be left and the floor is {floor}",
            code=Code.PRECONDITION,
        )
    return list(dict.fromkeys(named))


def bring_back(
    connection: Connection, machine: Machine, point: str, *, actor: str, at: datetime
) -> None:
    """Have a forgotten point back."""
    owner = connection.scalar(
        select(forgotten_points.c.machine_id).where(forgotten_points.c.id == point)
    )
    if owner != machine.id:
        raise NotFoundError(f"{point[:80]!r} is not among the forgotten restore points")
    forgotten.bring_back(connection, point)
    append(connection, machine.tenant, actor, "point_brought_back", {"point": point}, at)


def forgotten_of(connection: Connection, machine: Machine) -> list[str]:
    """Points that can still be had back, the newest first."""
    found = connection.scalars(
        select(forgotten_points.c.id)
        .where(forgotten_points.c.machine_id == machine.id)
        .order_by(forgotten_points.c.received_at.desc())
    )
    return list(found)


def hold(
    connection: Connection, machine: Machine, point: str, reason: str, *, actor: str, at: datetime
) -> None:
    """Keep a point whatever the rules say."""
    check_reason(reason)
    _require_point(connection, machine, point)
    values = {"reason": reason, "held_by": actor, "held_at": at}
    connection.execute(
        upsert(connection, point_holds).on_conflict_do_update(
            index_elements=["point_id"], set_=values
        ),
        {"point_id": point, "tenant_id": machine.tenant, "machine_id": machine.id} | values,
    )
    body = {"point": point, "reason": reason}
    append(connection, machine.tenant, actor, "point_held", body, at)


def release(
    connection: Connection, machine: Machine, point: str, reason: str, *, actor: str, at: datetime
) -> None:
    """End a hold; NOT_FOUND where there is none."""
    check_reason(reason)
    gone = connection.execute(
        delete(point_holds).where(
            point_holds.c.point_id == point, point_holds.c.machine_id == machine.id
        )
    )
    if not gone.rowcount:
        raise NotFoundError(f"{point[:80]!r} is not on hold; see `stead backup keep`")
    body = {"point": point, "reason": reason}
    append(connection, machine.tenant, actor, "point_released", body, at)


def tag(
    connection: Connection,
    machine: Machine,
    point: str,
    add: Sequence[str],
    remove: Sequence[str],
    *,
    actor: str,
    at: datetime,
) -> list[str]:
    """Change the tags of a point; all that it has then."""
    _require_point(connection, machine, point)
    before = set(connection.scalars(select(point_tags.c.tag).where(point_tags.c.point_id == point)))
    after = sorted((before - set(remove)) | set(add))
    check_tags(after)
    connection.execute(delete(point_tags).where(point_tags.c.point_id == point))
    if after:
        row = {"point_id": point, "tenant_id": machine.tenant, "machine_id": machine.id}
        connection.execute(insert(point_tags), [row | {"tag": one} for one in after])
    if set(after) != before:
        body = {"point": point, "tags": after}
        append(connection, machine.tenant, actor, "point_tagged", body, at)
    return after


def machines_with_points(connection: Connection, tenant: str) -> list[Machine]:
    """The machines of a tenant."""
    found = connection.scalars(select(machines.c.id).where(machines.c.tenant_id == tenant))
    return [Machine(one, tenant) for one in found]


def _rules_of(connection: Connection, machine: Machine) -> tuple[Rules | None, bool]:
    for name in (machine.id, ""):
        text = connection.scalar(
            select(retention_rules.c.rules).where(
                retention_rules.c.tenant_id == machine.tenant,
                retention_rules.c.machine_id == name,
            )
        )
        if text is not None:
            return msgspec.json.decode(text, type=Rules), name == ""
    return None, False


def _candidates(connection: Connection, machine: Machine) -> list[Candidate]:
    holds = {
        row.point_id: row.reason
        for row in connection.execute(
            select(point_holds).where(point_holds.c.machine_id == machine.id)
        )
    }
    tags: dict[str, set[str]] = {}
    for row in connection.execute(select(point_tags).where(point_tags.c.machine_id == machine.id)):
        tags.setdefault(row.point_id, set()).add(row.tag)
    faulty = _damaged(connection, machine)
    found = connection.execute(
        select(points.c.id, points.c.received_at).where(points.c.machine_id == machine.id)
    )
    return [
        Candidate(
            row.id,
            row.received_at,
            frozenset(tags.get(row.id, ())),
            holds.get(row.id, ""),
            "damaged" if row.id in faulty else "",
        )
        for row in found
    ]


def _damaged(connection: Connection, machine: Machine) -> set[str]:
    """Points that need chunks which are lost and were not sent again."""
    hits = connection.scalars(
        select(damages.c.hit).where(
            damages.c.tenant_id == machine.tenant,
            damages.c.number.in_(
                select(lost_chunks.c.damage).where(lost_chunks.c.tenant_id == machine.tenant)
            ),
        )
    )
    return {point for text in hits for point in decode_hit(text).get(machine.id, ())}


def _forget(
    connection: Connection,
    machine: Machine,
    doomed: Sequence[str],
    reason: str,
    actor: str,
    at: datetime,
) -> list[str]:
    for point in doomed:
        forgotten.forget(connection, point, reason=reason, at=at)
    if doomed:
        body = {"machine": machine.id, "points": list(doomed), "reason": reason}
        append(connection, machine.tenant, actor, "points_forgotten", body, at)
    return list(doomed)


def _require_point(connection: Connection, machine: Machine, point: str) -> None:
    owner = connection.scalar(select(points.c.machine_id).where(points.c.id == point))
    if owner != machine.id:
        raise NotFoundError(f"the machine has no restore point {point[:80]!r}")
