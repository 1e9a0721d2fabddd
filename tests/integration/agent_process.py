"""A real agent in a process of its own, as a service manager would run it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent.config import AgentHome
from agent.host.lock import holder_of
from protocol.action import Action
from protocol.identity import MachineIdentity, identity_of, pin_of
from protocol.ids import TenantId, TokenId
from protocol.order import Order
from protocol.outcome import OutcomeState
from protocol.token import Token, encode_token, hash_secret, seal_bundle
from protocol.v1 import job_pb2, operator_pb2
from protocol.v1.operator_pb2_grpc import TokenServiceStub
from protocol.vault.keys import TenantKey, encode_vault_secret
from tests.integration.conftest import Installation
from tests.integration.test_link import job_of, order_for

TENANT_KEY = TenantKey(bytes(range(32)))
WAIT_S = 60.0
"""Long, since a machine that is loaded may take most of it for what takes a second."""

T = TypeVar("T")
OVER = frozenset(state.value for state in OutcomeState)


async def token_text(
    installation: Installation, tenant: TenantId, *, uses: int = 1, ttl_s: int = 3600
) -> str:
    """A token whose bundle is a vault secret, as `stead token new` makes it."""
    from controller import clock

    token_id = TokenId(clock.new_id("tk"))
    secret, opening = os.urandom(16), os.urandom(16)
    bundle = encode_vault_secret(TENANT_KEY.secret)
    answer = await TokenServiceStub(installation.admin()).CreateToken(
        operator_pb2.CreateTokenRequest(
            token_id=token_id,
            tenant_id=tenant,
            secret_hash=hash_secret(secret),
            sealed_bundle=seal_bundle(opening, token_id, tenant, bundle),
            uses=uses,
            ttl_s=ttl_s,
        )
    )
    pin = pin_of(installation.root)
    return encode_token(Token(token_id, secret, opening, pin, answer.enrollment_address))


class AgentProcess:
    """`stead-agent` with a home of its own."""

    def __init__(self, directory: Path, code: Path | None = None) -> None:
        """`code` is a folder with the packages to run it from; None for those under test."""
        self.directory = directory
        self.code = code
        self.home = AgentHome(directory / "agent")
        self._running: asyncio.subprocess.Process | None = None
        self.log = directory / "agent.log"
        directory.mkdir(parents=True, exist_ok=True)

    async def command(
        self, *words: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Run one command to its end: exit code, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            *self._argv(*words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), WAIT_S)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent.cli", "--home", str(self.directory), *words]

    async def enroll(self, token: str) -> MachineIdentity:
        code, out, err = await self.command("enroll", "--token", "-", stdin=token + "\n")
        assert code == 0, (out, err)
        return self.identity

    @property
    def identity(self) -> MachineIdentity:
        from cryptography import x509

        leaf = x509.load_pem_x509_certificates(self.home.chain.read_bytes())[0]
        identity = identity_of(leaf)
        assert isinstance(identity, MachineIdentity)
        return identity

    async def start(self, *before: str, env: dict[str, str] | None = None) -> int:
        """Start `stead-agent run`; returns its process id."""
        with self.log.open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                *before,
                *self._argv("run"),
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=self.code,
            )
        return self._running.pid

    async def ended(self) -> int:
        """Wait until the agent ends by itself; its exit code."""
        assert self._running is not None
        code = await asyncio.wait_for(self._running.wait(), WAIT_S)
        self._running = None
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait."""
        assert self._running is not None
        holder = holder_of(self.home.lock)
        if holder is not None:
            # Not the process that was started: that may be a tracer of the agent.
            os.kill(holder, number)
        elif self._running.returncode is None:
            self._running.send_signal(number)
        return await self.ended()

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.returncode is None

    async def until_status(self, **wanted: Any) -> dict[str, Any]:
        """Wait until the status file says so."""

        def said_so() -> dict[str, Any] | None:
            if not self.home.status.exists():
                return None
            said: dict[str, Any] = json.loads(self.home.status.read_text())
            return said if wanted.items() <= said.items() else None

        return await self.until(said_so)

    async def until(self, look: Callable[[], T | None]) -> T:
        """Wait until `look` gives something; the error tells what the agent logged.

        An agent that has ended by itself is not waited for.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                while (found := look()) is None:
                    if self._running is not None and not self.alive:
                        code = self._running.returncode
                        raise AssertionError(f"the agent ended ({code}); {self.log.read_text()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it did not come to that; {self.log.read_text()}") from None
        return found

    def events(self) -> list[dict[str, Any]]:
        """What the agent logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


async def ended_job(installation: Installation, job: str) -> job_pb2.GetJobResponse:
    """Wait until every task of a job is over."""
    async with asyncio.timeout(WAIT_S):
        while True:
            answer = await job_of(installation, job, with_output=True)
            if all(task.state in OVER for task in answer.job.tasks):
                return answer
            await asyncio.sleep(0.05)


def printed(answer: job_pb2.GetJobResponse, stream: int = 1) -> bytes:
    """What a job's tasks printed on one of their streams."""
    return b"".join(piece.data for piece in answer.output if piece.stream == stream)


def order_to(agent: AgentProcess, action: Action, **changes: object) -> Order:
    """An order to an agent, as `order_for` makes one."""
    identity = agent.identity
    order = order_for(identity.tenant, action=action)
    return replace(order, machines=(identity.machine,), **changes)  # type: ignore[arg-type]


async def join(installation: Installation, agent: AgentProcess) -> None:
    """Enroll an agent in a new tenant, start it, and wait for its link."""
    await agent.enroll(await token_text(installation, await installation.add_tenant()))
    await agent.start()
    await agent.until_status(link="connected")


@pytest.fixture(name="agent")
async def idle_agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """An agent that is not enrolled and does not run; it is stopped in the end."""
    agent = AgentProcess(tmp_path / "machine")
    yield agent
    if agent.alive:
        await agent.stop()


@pytest.fixture(name="agent")
async def linked_agent(installation: Installation, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """An enrolled agent that runs and is connected."""
    agent = AgentProcess(tmp_path / "machine")
    await join(installation, agent)
    yield agent
    if agent.alive:
        await agent.stop()
