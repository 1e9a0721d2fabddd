"""A real agent and a real controller: enrollment, link, orders, inventory."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import timedelta
from pathlib import Path

from protocol.action import (
    CollectInventory,
    RunBackup,
    RunProgram,
    SetBackup,
    TakeSnapshot,
)
from protocol.selection import Commands, CommandStream
from protocol.v1 import job_pb2
from tests.integration.agent_process import (
    AgentProcess,
    ended_job,
    linked_agent,
    order_to,
    printed,
)
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, submit

__all__ = ["linked_agent"]


async def test_a_program_runs_and_its_output_exit_code_and_times_come_back(
    installation: Installation, agent: AgentProcess
) -> None:
    action = RunProgram(
        ("sh", "-c", "echo out; echo err >&2; cat; echo $GREETING; pwd; exit 3"),
        stdin=b"given\n",
        environment={"GREETING": "hello"},
        directory="/usr",
    )
    job = await submit(installation, enveloped(installation, order_to(agent, action)))
    answer = await ended_job(installation, job.job_id)
    [task] = answer.job.tasks
    assert (task.state, task.exit_code) == ("failed", 3)
    assert printed(answer) == b"out\ngiven\nhello\n/usr\n"
    assert printed(answer, stream=2) == b"err\n"
    assert 0 < task.started_at_ms <= task.ended_at_ms


async def test_a_program_that_is_not_there_is_a_failure_with_the_reason(
    installation: Installation, agent: AgentProcess
) -> None:
    order = order_to(agent, RunProgram(("no-such-program",)))
    job = await submit(installation, enveloped(installation, order))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "failed"
    assert "cannot start no-such-program" in task.message


async def test_a_program_that_takes_too_long_is_ended_with_its_children(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    marker = tmp_path / "alive"
    script = f"(while :; do date +%N > {marker}; sleep 0.05; done) & echo begun; wait"
    order = order_to(agent, RunProgram(("sh", "-c", script)), timeout=timedelta(seconds=2))
    job = await submit(installation, enveloped(installation, order))
    answer = await ended_job(installation, job.job_id)
    assert answer.job.tasks[0].state == "timed_out"
    assert printed(answer) == b"begun\n"
    marker.unlink()
    # A second job ends long after the child would have written again.
    later = order_to(agent, RunProgram(("sleep", "0.3")))
    job = await submit(installation, enveloped(installation, later))
    await ended_job(installation, job.job_id)
    assert not marker.exists()


async def test_inventory_is_reported_on_order_and_its_root_is_told(
    installation: Installation, agent: AgentProcess
) -> None:
    order = order_to(agent, CollectInventory())
    job = await submit(installation, enveloped(installation, order))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state in {"succeeded", "partial"}, task.message
    result = json.loads(task.result)
    assert len(result["root"]) == 64
    assert result["seconds"] < 10


async def test_a_damaged_cache_costs_only_what_was_damaged(
    installation: Installation, agent: AgentProcess
) -> None:
    async def collect(*sections: str) -> job_pb2.Task:
        order = order_to(agent, CollectInventory(sections))
        job = await submit(installation, enveloped(installation, order))
        [task] = (await ended_job(installation, job.job_id)).job.tasks
        return task

    def reported() -> bool | None:
        return any(one["event"] == "routine_done" for one in agent.events()) or None

    # The report that an agent makes by itself soon after its start would mend the cache.
    await agent.until(reported)
    assert (await collect()).state == "succeeded"
    kept = agent.home.cache / "sections"
    (kept / "packages.json").write_bytes(b'{"section":"pack')
    (kept / "cpu.json").write_bytes((kept / "memory.json").read_bytes())
    (agent.home.cache / "inventory.root").write_bytes(b"short")
    task = await collect("system")
    assert task.state == "succeeded", task.message
    whole = await collect()
    assert whole.state == "succeeded", whole.message
    assert {"packages", "cpu"} <= set(json.loads(whole.result)["changed"])


async def test_inventories_that_are_ordered_at_once_are_all_reported_whole(
    installation: Installation, agent: AgentProcess
) -> None:
    orders = [order_to(agent, CollectInventory(("cpu", "ports", "packages"))) for _ in range(6)]
    jobs = [await submit(installation, enveloped(installation, order)) for order in orders]
    for job in jobs:
        [task] = (await ended_job(installation, job.job_id)).job.tasks
        assert task.state == "succeeded", task.message
    # The agent's own first report may be writing another section aside at this moment.
    for path in (agent.home.cache / "sections").glob("[!.]*.json"):
        assert json.loads(path.read_bytes())["section"] == path.stem


async def test_a_snapshot_has_live_figures(installation: Installation, agent: AgentProcess) -> None:
    job = await submit(installation, enveloped(installation, order_to(agent, TakeSnapshot())))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state in {"succeeded", "partial"}, task.message
    assert json.loads(task.result)["live"]["memory"]["total_bytes"] > 0


async def test_a_backup_set_is_kept_with_its_signed_order(
    installation: Installation, agent: AgentProcess
) -> None:
    order = order_to(agent, SetBackup((b"/etc",), "daily"))
    job = await submit(installation, enveloped(installation, order))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "succeeded", task.message
    code, out, _ = await agent.command("status", "--output", "json")
    assert code == 0
    assert json.loads(out)["backup_schedule"] == "daily"


async def test_what_the_machines_administrator_denies_is_rejected(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    settings = agent.home.settings
    settings.write_text(settings.read_text().replace("deny = []", 'deny = ["run_program"]'))
    made = tmp_path / "made"
    order = order_to(agent, RunProgram(("touch", str(made))))
    job = await submit(installation, enveloped(installation, order))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert (task.state, task.code) == ("rejected", "denied")
    assert not made.exists()


async def test_an_order_given_while_the_agent_was_away_is_executed_once_when_it_returns(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    await agent.stop()
    effects = tmp_path / "effects"
    order = order_to(agent, RunProgram(("sh", "-c", f"echo once >> {effects}")))
    job = await submit(installation, enveloped(installation, order))
    await agent.start()
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "succeeded"
    assert effects.read_text() == "once\n"


async def test_a_task_that_ran_when_the_agent_was_killed_is_indeterminate_and_ended(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    marker = tmp_path / "alive"
    script = f"echo begun; while :; do echo x >> {marker}; sleep 0.05; done"
    job = await submit(
        installation, enveloped(installation, order_to(agent, RunProgram(("sh", "-c", script))))
    )
    while not marker.exists():
        await asyncio.sleep(0.02)
    await agent.stop(signal.SIGKILL)
    await agent.start()
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "indeterminate"
    size = marker.stat().st_size
    order = order_to(agent, RunProgram(("sleep", "0.3")))
    job = await submit(installation, enveloped(installation, order))
    await ended_job(installation, job.job_id)
    assert marker.stat().st_size == size


async def test_output_beyond_its_bound_is_cut_and_said_so_and_the_program_goes_on(
    installation: Installation, agent: AgentProcess
) -> None:
    script = "head -c 20000000 /dev/zero; echo last words >&2; exit 0"
    order = order_to(agent, RunProgram(("sh", "-c", script)))
    job = await submit(installation, enveloped(installation, order))
    answer = await ended_job(installation, job.job_id)
    assert answer.job.tasks[0].state == "succeeded"
    assert answer.job.tasks[0].output_truncated


async def test_a_second_agent_in_the_same_home_names_the_first(agent: AgentProcess) -> None:
    said = await agent.until_status(link="connected")
    code, _, err = await agent.command("run")
    assert code == 1
    assert f"process {said['process']}" in err
    assert "Traceback" not in err


async def test_a_backup_set_is_backed_up_on_order_and_by_the_machines_administrator(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"content" * 1000)
    code, _, err = await agent.command("backup", "run")
    assert (code, "no backup set" in err) == (1, True)
    for action in (SetBackup((bytes(kept),)), RunBackup()):
        job = await submit(installation, enveloped(installation, order_to(agent, action)))
        [task] = (await ended_job(installation, job.job_id)).job.tasks
        assert task.state == "succeeded", task.message
    code, out, err = await agent.command("backup", "run")
    assert code == 0, err
    assert out.startswith("restore point rp_")
    assert "{" not in out + err
    code, out, err = await agent.command("backup", "ls", "--output", "json")
    assert code == 0, err
    assert len(json.loads(out)) == 2


async def test_the_machines_administrator_backs_up_the_whole_set_with_its_programs(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"content")
    ran = tmp_path / "ran"
    commands = Commands((CommandStream(b"/dumps/shop", ("echo", "dump")),), ("touch", str(ran)))
    order = order_to(agent, SetBackup((bytes(kept),), commands=commands))
    job = await submit(installation, enveloped(installation, order))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "succeeded", task.message
    code, out, err = await agent.command("backup", "run", "--output", "json")
    assert code == 0, err
    assert ran.exists()
    assert json.loads(out)["files"] == 2
