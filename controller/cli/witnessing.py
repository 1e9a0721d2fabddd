"""Ask machines which checkpoints of the audit logs they keep, and believe what is proven."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from controller import clock
from controller.audit.trail import Mark
from controller.cli.connection import Connection
from controller.cli.ordering import order_and_follow, task_of
from controller.cli.outcomes import result_of
from controller.cli.terms import Terms
from protocol.action import ReadWitness
from protocol.checkpoint import open_checkpoint, render_log
from protocol.errors import SteadError
from protocol.ids import MachineId, TenantId
from protocol.v1.job_pb2 import Task
from protocol.v1.operator_pb2 import Machine
from protocol.witness import NONCE_BYTES, SignedStatement, Statement, is_proven, open_statement


@dataclass(slots=True)
class Witnessed:
    """What machines state: checkpoints as marks, by log; alarms and troubles in words."""

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    heard: int = 0


def ask_witnesses(
    connection: Connection, machines: Sequence[Machine], terms: Terms, output: str
) -> Witnessed | None:
    """Order machines to state what they keep, and wait; None when nothing was ordered."""
    nonce = os.urandom(NONCE_BYTES)
    action = ReadWitness(nonce)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    if job is None:
        return None
    found, names = Witnessed(), {machine.name: machine for machine in machines}
    for task in job.tasks:
        if task.state != "succeeded":
            found.silent.append(f"{task.machine_name}: {task.state} {task.message}".strip())
            continue
        try:
            whole = task if task.result else task_of(connection, job.job_id, task.task_id) or task
            _take(connection, found, whole, names[task.machine_name], nonce)
        except (SteadError, KeyError, msgspec.ValidationError) as error:
            found.silent.append(f"{task.machine_name}: not believed: {error}")
    return found


def _take(
    connection: Connection, found: Witnessed, task: Task, machine: Machine, nonce: bytes
) -> None:
    signed = msgspec.convert(result_of(task), type=SignedStatement)
    statement = open_statement(
        signed,
        root=connection.root,
        machine=MachineId(machine.machine_id),
        tenant=TenantId(machine.tenant_id),
        nonce=nonce,
        now=clock.now(),
        distrusted=connection.distrusted,
    )
    _prove(connection, found, signed, statement, machine.name)
    found.heard += 1
    for data in statement.kept:
        kept = open_checkpoint(data, connection.root)
        mark = Mark(kept, f"what {machine.name} keeps")
        found.marks.setdefault(kept.log, []).append(mark)
    for alarm in statement.alarms:
        log = render_log(open_checkpoint(alarm.kept, connection.root).log) if alarm.kept else ""
        found.alarms.append(
            f"{machine.name}: {alarm.found} since {alarm.at:%Y-%m-%d %H:%M:%S}Z {log}".rstrip()
        )


def _prove(
    connection: Connection,
    found: Witnessed,
    signed: SignedStatement,
    statement: Statement,
    name: str,
) -> None:
    """Hold the keyed hash against the tenant's keys, where this profile has them."""
    if not connection.keyring.has(statement.tenant):
        found.unproven.append(name)
        return
    keys = connection.keyring.load(statement.tenant).keys
    if not any(is_proven(signed, key.secret.convergence) for key in keys):
        raise SteadError("its statement is not proven by the tenant's key")
