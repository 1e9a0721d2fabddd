"""Enrollment with a real controller: what succeeds, what is refused and why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.host import files
from agent.link import enroll as enrolling
from agent.link.enroll import enroll, finish
from agent.link.identity import load_identity
from agent.tasks.journal import new_journal
from protocol.errors import Code, SteadError
from protocol.token import decode_token, encode_token
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from protocol.vault.keys import decode_vault_secret
from tests.integration.agent_process import TENANT_KEY, AgentProcess, token_text
from tests.integration.conftest import Installation


async def attempt(
    token: str, home: AgentHome, *, later: timedelta = timedelta(), force: bool = False
) -> SteadError | None:
    """Enroll in a thread, since the controller lives in this event loop."""
    now = datetime.now(UTC) + later
    try:
        await asyncio.to_thread(
            enroll, token, home, version="0.1.0", now=now, journal=new_journal(), force=force
        )
    except SteadError as error:
        return error
    return None


async def test_an_enrolled_machine_holds_its_secret_and_private_files(
    installation: Installation, tmp_path: Path
) -> None:
    home = AgentHome(tmp_path / "agent")
    tenant = await installation.add_tenant()
    assert await attempt(await token_text(installation, tenant), home) is None
    known = load_identity(home)
    assert known.identity.tenant == tenant
    assert decode_vault_secret(home.vault_secret.read_bytes()) == TENANT_KEY.secret
    assert home.path.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.path.iterdir())
    assert not home.enrolling.exists()


async def test_a_token_is_refused_with_the_reason_and_the_machine_can_try_again(
    installation: Installation, tmp_path: Path
) -> None:
    home = AgentHome(tmp_path / "agent")
    tenant = await installation.add_tenant()
    text = await token_text(installation, tenant)
    token = decode_token(text)
    other = encode_token(type(token)(token.id, bytes(16), token.opening, token.pin, token.address))
    pin = encode_token(type(token)(token.id, token.secret, token.opening, bytes(32), token.address))
    nobody = encode_token(
        type(token)(token.id, token.secret, token.opening, token.pin, "127.0.0.1:1")
    )
    unopened = encode_token(
        type(token)(token.id, token.secret, bytes(16), token.pin, token.address)
    )
    for wrong, code in (
        (text[:-5], Code.TOKEN_INVALID),
        ("nonsense", Code.TOKEN_INVALID),
        (other, Code.TOKEN_INVALID),
        (pin, Code.WRONG_PIN),
        (nobody, Code.UNAVAILABLE),
        (unopened, Code.TOKEN_INVALID),
    ):
        error = await attempt(wrong, home)
        assert error is not None
        assert error.code is code, error
        assert not home.settings.exists()
    # The token was used by the attempt that could not open the bundle, with the same key.
    assert await attempt(text, home) is None
    used = await attempt(text, AgentHome(tmp_path / "other"))
    assert used is not None
    assert used.code is Code.TOKEN_USED


async def test_a_clock_that_is_wrong_is_named_with_both_times(
    installation: Installation, tmp_path: Path
) -> None:
    tenant = await installation.add_tenant()
    text = await token_text(installation, tenant)
    home = AgentHome(tmp_path / "agent")
    for later in (timedelta(days=-1), timedelta(days=3650)):
        error = await attempt(text, home, later=later)
        assert error is not None
        assert error.code is Code.CLOCK_SKEW
        assert f"{datetime.now(UTC) + later:%Y-%m-%d}" in str(error)
        # The certificate begins a little before it is made, perhaps on the day before.
        now = datetime.now(UTC)
        days = {f"{now:%Y-%m-%d}", f"{now - timedelta(minutes=5):%Y-%m-%d}"}
        assert any(day in str(error) for day in days)
    assert await attempt(text, home) is None


async def test_an_enrolled_machine_becomes_a_new_one_only_by_force(
    installation: Installation, tmp_path: Path
) -> None:
    home = AgentHome(tmp_path / "agent")
    tenant = await installation.add_tenant()
    assert await attempt(await token_text(installation, tenant), home) is None
    before = load_identity(home).identity
    refused = await attempt(await token_text(installation, tenant), home)
    assert refused is not None
    assert refused.code is Code.ALREADY_EXISTS
    assert load_identity(home).identity == before
    assert await attempt(await token_text(installation, tenant), home, force=True) is None
    assert load_identity(home).identity != before


class CutError(Exception):
    """The machine lost power here."""


class Cut:
    """Lets so many directories be made durable, then cuts the power."""

    def __init__(self, left: int, sync: Callable[[Path], None]) -> None:
        self.left, self.sync = left, sync

    def __call__(self, path: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise CutError
        self.sync(path)


@pytest.mark.parametrize("force", [False, True])
async def test_cut_at_any_point_it_is_as_before_or_enrolled_and_trying_again_succeeds(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    tenant = await installation.add_tenant()
    sync = files.sync_directory
    step = 0
    survived = False
    while not survived:
        home = AgentHome(tmp_path / str(step) / "agent")
        before = None
        if force:
            assert await attempt(await token_text(installation, tenant), home) is None
            before = load_identity(home).identity
        text = await token_text(installation, tenant)
        cut = Cut(step, sync)
        with monkeypatch.context() as patched:
            patched.setattr(files, "sync_directory", cut)
            patched.setattr(enrolling, "sync_directory", cut)
            try:
                assert await attempt(text, home, force=force) is None
                survived = True
            except CutError:
                pass
        # A start of the agent: it finishes what was whole, and otherwise is as before.
        if home.path.exists():
            finish(home)
        if home.settings.exists():
            now = load_identity(home).identity
            decode_vault_secret(home.vault_secret.read_bytes())
            again_needed = now == before
        else:
            assert not force
            again_needed = True
        if again_needed:
            assert await attempt(text, home, force=force) is None
            assert load_identity(home).identity != before
        step += 1
    assert step > 10


async def test_the_command_says_in_one_line_what_is_wrong_and_exits_by_the_table(
    installation: Installation, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path / "machine")
    code, out, err = await agent.command("enroll", "--token", "-", stdin="stead1-abc\n")
    assert (code, out, err.count("\n")) == (1, "", 1)
    token = decode_token(await token_text(installation, await installation.add_tenant()))
    nobody = type(token)(token.id, token.secret, token.opening, token.pin, "127.0.0.1:1")
    code, out, err = await agent.command("enroll", "--token", encode_token(nobody))
    assert (code, out, err.count("\n")) == (6, "", 1)
    assert "cannot connect to 127.0.0.1:1" in err
    for words in (("run",), ("status",), ("backup", "ls"), ("backup", "run")):
        code, out, err = await agent.command(*words)
        assert (code, out) == (1, ""), words
        assert "stead-agent enroll" in err
        assert "Traceback" not in err


async def test_the_doctor_names_each_trouble_with_a_next_step(
    installation: Installation, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path / "machine")
    tenant = await installation.add_tenant()
    await agent.enroll(await token_text(installation, tenant))
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert (code, troubles(out)) == (1, {"agent"})
    await agent.start()
    await agent.until_status(link="connected")
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert code == 0, out
    await agent.stop()
    agent.home.key.chmod(0o644)
    damaged = bytearray(agent.home.journal.read_bytes())
    damaged[20] ^= 1
    agent.home.journal.write_bytes(damaged)
    text = agent.home.settings.read_text().replace(installation.link_address, "127.0.0.1:1")
    agent.home.settings.write_text(text)
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert code == 1
    assert troubles(out) == {"agent", "permissions", "journal", "link TCP"}
    agent.home.sealing_key.unlink()
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert (code, troubles(out)) == (1, {"identity"})


def troubles(out: str) -> set[str]:
    """The checks that did not pass; each says what to do."""
    bad = [found for found in json.loads(out) if not found["good"]]
    assert all(found["next_step"] for found in bad), bad
    return {found["check"] for found in bad}


async def test_what_only_the_link_knows_is_told_by_status_and_doctor(
    installation: Installation, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path / "machine")
    tenant = await installation.add_tenant()
    await agent.enroll(await token_text(installation, tenant))
    await agent.start()
    await agent.until_status(link="connected")
    await MachineServiceStub(installation.admin()).RevokeMachine(
        operator_pb2.RevokeMachineRequest(machine_id=agent.identity.machine)
    )
    await agent.until_status(link="parked", code="revoked")
    code, out, _ = await agent.command("status", "--output", "json")
    assert (code, json.loads(out)["link"]) == (6, "parked")
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert (code, troubles(out)) == (1, {"agent"})
    assert "revoked" in out
    await agent.stop()


async def test_an_agent_that_stands_still_is_not_called_connected(
    installation: Installation, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path / "machine")
    tenant = await installation.add_tenant()
    await agent.enroll(await token_text(installation, tenant))
    pid = await agent.start()
    said = await agent.until_status(link="connected")
    os.kill(pid, signal.SIGSTOP)
    said["last_heartbeat_at"] = "2026-01-01T00:00:00Z"
    agent.home.status.write_text(json.dumps(said))
    code, out, _ = await agent.command("status", "--output", "json")
    assert (code, json.loads(out)["link"]) == (6, "silent")
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert (code, troubles(out)) == (1, {"agent"})
    os.kill(pid, signal.SIGCONT)
    await agent.stop()


async def test_no_token_at_all_is_one_line_too(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "machine")
    for before in ("exec <&-", "exec < /dev/null", "printf '\\377\\n' |"):
        words = " ".join(agent._argv("enroll", "--token", "-"))
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"{before}{'' if before.endswith('|') else ';'} {words}",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, err = await process.communicate()
        assert process.returncode == 1
        assert (err.count(b"\n"), b"not an enrollment token" in err) == (1, True), err
