"""A live agent watches its backup set, and its backups go by that, over mutual TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol.action import RunBackup, SetBackup
from tests.integration.agent_process import AgentProcess, ended_job, join, order_to, token_text
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, submit


async def ordered(
    installation: Installation, agent: AgentProcess, action: SetBackup | RunBackup
) -> dict[str, Any]:
    """The result of an order that succeeds."""
    order = order_to(agent, action)
    job = (await submit(installation, enveloped(installation, order))).job_id
    [task] = (await ended_job(installation, job)).job.tasks
    assert task.state == "succeeded", task.message
    return dict(json.loads(task.result))


async def test_a_backup_goes_by_what_the_running_agent_watched(
    installation: Installation, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    for number in range(20):
        (kept / f"d{number}").mkdir(parents=True)
        (kept / f"d{number}" / "file").write_bytes(b"content %d" % number)
    agent = AgentProcess(tmp_path / "machine")
    await join(installation, agent)
    await ordered(installation, agent, SetBackup((bytes(kept),), "weekly"))
    first = await ordered(installation, agent, RunBackup())
    assert (first["detector"], first["why"]) == (
        "walk: first",
        "there is no earlier run to go on from",
    )
    (kept / "d7" / "file").write_bytes(b"changed")
    second = await ordered(installation, agent, RunBackup())
    assert second["detector"] == "watch"
    assert second["read_files"] == 1
    assert not list((agent.home.cache / "backup").glob("handover.*"))

    # An agent that was away has not seen what happened: the next run walks, and says why.
    await agent.stop()
    (kept / "d8" / "file").write_bytes(b"changed while nobody watched")
    await agent.start()
    await agent.until_status(link="connected")
    third = await ordered(installation, agent, RunBackup())
    assert third["detector"] == "walk: gap"
    assert third["read_files"] >= 1
    (kept / "d9" / "file").write_bytes(b"changed once more")
    fourth = await ordered(installation, agent, RunBackup())
    assert fourth["detector"] == "watch"
    assert fourth["read_files"] == 1
    await agent.stop()


async def test_an_agent_whose_settings_forbid_it_watches_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    agent = AgentProcess(tmp_path / "machine")
    await agent.enroll(await token_text(installation, await installation.add_tenant()))
    settings = agent.home.settings.read_text()
    agent.home.settings.write_text(settings.replace("watch = true", "watch = false"))
    await agent.start()
    await agent.until_status(link="connected")
    await ordered(installation, agent, SetBackup((bytes(kept),), "weekly"))
    for _ in range(2):
        result = await ordered(installation, agent, RunBackup())
        assert result["detector"] == "walk: unwatched"
    assert not [event for event in agent.events() if event["event"] == "watch_begun"]
    await agent.stop()
