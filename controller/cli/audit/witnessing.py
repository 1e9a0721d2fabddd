"""Ask machines which checkpoints of the audit logs they keep, and believe what is proven."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from controller import clock
from controller.audit.trail import Mark
from controller.cli.audit.file import StatementLine
from controller.cli.operator.connection import Connection
from controller.cli.options.terms import Terms
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import result_of, say_halted
from protocol.action import ReadWitness
from protocol.checkpoint import decode_checkpoint, decode_signed, open_checkpoint, render_log
from protocol.errors import SteadError
from protocol.ids import MachineId, TenantId
from protocol.v1.job_pb2 import Task
from protocol.v1.operator_pb2 import Machine
from protocol.witness import (
    NONCE_BYTES,
    Alarm,
    SignedStatement,
    Statement,
    is_proven,
    open_statement,
)


@dataclass(slots=True)
class Witnessed:
    """What machines state: checkpoints as marks, by log; alarms in words; the answers as they
    came.

    `silent` are machines of which nothing is believed, with the reason; `unproven` those whose
    answers the controller could have made; `outdated` those who proved them by a key that was
    replaced, perhaps because somebody else has it.
    """

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    answers: list[StatementLine] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)

    def in_words(self) -> list[str]:
        """What keeps the answers from being the whole truth."""
        words = [f"not heard: {line}" for line in self.silent]
        if self.unproven:
            words.append(
                "signed by the machine's certificate alone, which the controller could have made, "
                f"since your profile has no key of the tenant: {', '.join(self.unproven)}"
            )
        if self.outdated:
            words.append(
                "proven by a key of the tenant that was replaced, so that whoever had it could "
                f"have helped the controller to make it: {', '.join(self.outdated)}; `stead tenant "
                "key send` gives machines the one in force"
            )
        return words


def ask_witnesses(
    connection: Connection, machines: Sequence[Machine], terms: Terms, output: str
) -> Witnessed | None:
    """Order machines to state what they keep, and wait; None when nothing was ordered."""
    nonce = os.urandom(NONCE_BYTES)
    action = ReadWitness(nonce)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    if job is None:
        return None
    say_halted(job)
    found, names = Witnessed(), {machine.name: machine for machine in machines}
    for task in job.tasks:
        if task.state != "succeeded":
            found.silent.append(f"{task.machine_name}: {task.state} {task.message}".strip())
            continue
        try:
            _take(connection, found, task, names[task.machine_name], nonce)
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
    found.answers.append(
        StatementLine(machine.name, signed.body, signed.signature, [*signed.chain], signed.proof)
    )
    for data in statement.kept:
        kept = open_checkpoint(data, connection.root)
        mark = Mark(kept, f"what {machine.name} keeps")
        found.marks.setdefault(kept.log, []).append(mark)
    for alarm in statement.alarms:
        since = f"{alarm.found} since {alarm.at:%Y-%m-%d %H:%M:%S}Z"
        found.alarms.append(f"alarm: {machine.name}: {since} {_log_of(alarm)}".rstrip())


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
    newest, *older = connection.keyring.load(statement.tenant).keys
    if is_proven(signed, newest.secret.convergence):
        return
    if not any(is_proven(signed, key.secret.convergence) for key in older):
        raise SteadError(
            "its statement is proven by none of the tenant's keys in your profile; if the key was "
            "rotated since, `stead tenant key receive` brings the newest"
        )
    found.outdated.append(name)


def _log_of(alarm: Alarm) -> str:
    """Of which log an alarm is, as far as its evidence names one."""
    for data in (alarm.kept, alarm.told):
        try:
            return render_log(decode_checkpoint(decode_signed(data).body).log)
        except SteadError:
            continue
    return ""
