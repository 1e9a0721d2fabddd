"""An agent's way in, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_struct

from agent.config import AgentHome, render_settings
from agent.host import clock
from agent.host.spool import Spool
from agent.link.identity import load_identity
from agent.tasks.believe import load_believed
from agent.tasks.execute import Turns
from agent.tasks.intake import Intake
from agent.tasks.journal import Journal
from agent.tasks.revoked import take_revocations
from protocol.action import Action, RunProgram
from protocol.codec import (
    encode_envelope,
    encode_order,
    encode_revocations,
    encode_signed_revocations,
    to_ms,
)
from protocol.identity import OperatorIdentity, Role, key_hash
from protocol.ids import OrderId, TaskId
from protocol.order import Envelope, Order, sign
from protocol.outcome import Outcome
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.standing import Run, Standing
from tests.fakes.link_server import DAY, Authority, Realm, fresh, new_task

HOUR = timedelta(hours=1)


class Heard:
    """What the tasks tell; see `agent.tasks.telling`."""

    def __init__(self) -> None:
        self.runs: dict[TaskId, Run] = {}
        self.outcomes: dict[TaskId, Outcome] = {}

    def started(self, task: TaskId, at: datetime, spool: Spool) -> None: ...

    def run(self, task: TaskId, run: Run, next_at: datetime | None) -> None:
        self.runs[task] = run

    def printed(self) -> None: ...

    def ended(self, task: TaskId, outcome: Callable[[], Outcome]) -> None:
        self.outcomes[task] = outcome()

    def rejected(self, outcome: Outcome) -> None:
        self.outcomes[outcome.task] = outcome

    def acknowledged(self, task: TaskId) -> Spool | None:
        return None


class Machine:
    """An agent's way in with a clock that the test moves."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.realm, self.home = Realm(), AgentHome(path / "agent")
        self.effects = path / "effects"
        self.effects.mkdir()
        self.identity = self.realm.furnish(self.home, "127.0.0.1:1")
        self.known = load_identity(self.home)
        self.ann = self.realm.operator(identity=OperatorIdentity("ann", Role.ADMIN, None))
        self.at = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
        self.heard = Heard()
        monkeypatch.setattr(clock, "now", lambda: self.at)
        self.start()

    def start(self) -> None:
        """Begin as an agent that was started anew."""
        self.journal = Journal(self.home.journal)
        self.intake = Intake(
            self.home,
            lambda: load_believed(self.home, self.known),
            self.journal,
            self.heard,
            Turns(),
            None,
            lambda: None,
        )

    def signed(self, action: Action, by: Authority | None = None, **changes: object) -> Envelope:
        order = Order(
            id=OrderId(fresh("or")),
            tenant=self.identity.tenant,
            machines=(self.identity.machine,),
            action=action,
            issued_at=self.at,
            not_before=self.at,
            deliver_by=self.at + DAY,
            timeout=timedelta(minutes=1),
        )
        by = by or self.ann
        whole = replace(order, **changes)  # type: ignore[arg-type]
        return sign(encode_order(whole), key=by.key, certificate=by.certificate)

    def standing(self, days: float = 30, **changes: object) -> Envelope:
        bounds = Standing("0 * * * *", to_ms(self.at + timedelta(days=days)))
        bounds = replace(bounds, **changes)  # type: ignore[arg-type]
        script = f"echo x >> {self.effects}/ran"
        return self.signed(RunProgram(("sh", "-c", script)), standing=bounds)

    async def take(self, envelope: Envelope) -> Outcome:
        """Offer an order and wait for its outcome."""
        task = new_task()
        self.intake.offered(task, encode_envelope(envelope))
        await self.settled()
        return self.heard.outcomes[task]

    async def look(self, times: int = 1) -> int:
        """Look for what is due; how often the program has run by then."""
        for _ in range(times):
            self.intake.run_due()
            await self.settled()
        return self.ran

    async def settled(self) -> None:
        while self.intake._carrying.running:
            await asyncio.wait([one.work for one in self.intake._carrying.running.values()])
            await asyncio.sleep(0)

    @property
    def ran(self) -> int:
        path = self.effects / "ran"
        return len(path.read_text().split()) if path.exists() else 0

    def revoke_operator(self, who: Authority, at: datetime) -> None:
        entry = RevokedOperator("ann", key_hash(who.key.public_key()), at)
        listed = encode_revocations(Revocations(1, self.at, (entry,)))
        data = encode_signed_revocations(sign_revocations(listed, self.realm.root.key))
        take_revocations(self.home, self.realm.root.certificate, data)

    def set(self, **changes: object) -> None:
        settings = replace_struct(self.home.load_settings(), **changes)
        self.home.settings.write_bytes(render_settings(settings))
