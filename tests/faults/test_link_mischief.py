"""Messages between agent and controller are lost, doubled and reordered.

A real agent and a real controller: whatever becomes of offers, beginnings, output, outcomes and
acknowledgements on their way, every order acts once and has one outcome.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import grpc
import msgspec
import pytest
from cryptography import x509

from agent.config import Settings, render_settings
from controller import clock
from controller.authority.authority import load_key
from protocol.action import RunProgram
from protocol.tls import chain_pem, private_pem
from tests.fakes.relay import Relay
from tests.integration.agent_process import AgentProcess, ended_job, order_to, token_text
from tests.integration.conftest import Installation, install
from tests.integration.test_link import enveloped, submit

SEED = 20261126


async def acted_once(directory: Path, *, orders: int, losses: int, seed: int) -> Counter[str]:
    """Give orders through a relay that loses so many messages; what became of the messages."""
    installation = await install(directory / "home")
    try:
        return await _acted_once(installation, directory, orders, losses, seed)
    finally:
        await installation.close()


async def _acted_once(
    installation: Installation, directory: Path, orders: int, losses: int, seed: int
) -> Counter[str]:
    agent = AgentProcess(directory / "machine")
    tenant = await installation.add_tenant()
    await agent.enroll(await token_text(installation, tenant))
    chain = x509.load_pem_x509_certificates(agent.home.chain.read_bytes())
    upstream = installation.channel(load_key(agent.home.key), *chain)
    key, shown = installation.serving.current(clock.now())
    pair = [(private_pem(key), chain_pem(shown))]
    credentials = grpc.ssl_server_credentials(
        pair, chain_pem([installation.root]), require_client_auth=True
    )
    async with Relay(upstream, credentials, seed=seed, losses=losses) as relay:
        settings = Settings(relay.address, installation.enrollment_address)
        agent.home.settings.write_bytes(render_settings(settings))
        await agent.start()
        try:
            await agent.until_status(link="connected")
            effects = [directory / f"effect-{number}" for number in range(orders)]
            jobs = []
            for effect in effects:
                action = RunProgram(("sh", "-c", f"echo done | tee -a {effect}"))
                jobs.append(
                    await submit(installation, enveloped(installation, order_to(agent, action)))
                )
            for job, effect in zip(jobs, effects, strict=True):
                [task] = (await ended_job(installation, job.job_id)).job.tasks
                assert task.state == "succeeded", (seed, task)
                assert effect.read_text() == "done\n", seed
        finally:
            await agent.stop()
    log = await installation.audit(tenant)
    ended = [msgspec.json.decode(e.body)["order"] for e in log if e.event == "task_ended"]
    assert sorted(ended) == sorted(job.job_id for job in jobs)
    return relay.fates


async def test_lost_doubled_and_reordered_messages_leave_one_act_and_one_outcome(
    tmp_path: Path,
) -> None:
    fates = await acted_once(tmp_path, orders=12, losses=4, seed=SEED)
    assert fates["lost"] == 4
    assert fates["doubled"]
    assert fates["late"]


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(5))
async def test_often_lost_doubled_and_reordered_messages_leave_one_act_and_one_outcome(
    tmp_path: Path, number: int
) -> None:
    seed = SEED + 1 + number
    fates = await acted_once(tmp_path, orders=80, losses=40, seed=seed)
    print(f"seed {seed}: 80 orders, {dict(fates)}")
    assert fates["lost"] == 40
    assert fates["doubled"]
    assert fates["late"]
