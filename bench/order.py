"""One order to one machine: from signing to its durable outcome at the operator.

    python -m bench.order [--orders 200]

A controller and a real agent on this machine, over mutual TLS on loopback. Each order runs
the program `true`; it is signed, handed in and watched until the operator has its outcome,
one after the other. In between the agent has journalled it three times and the controller
has written it four times, each of them synced to the disk. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from protocol.action import RunProgram
from protocol.v1.job_pb2 import SubmitOrderRequest, WatchJobRequest
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.integration.agent_process import AgentProcess, order_to, token_text
from tests.integration.conftest import Installation, install
from tests.integration.test_link import enveloped

WARM_UP = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--orders", type=int, default=200)
    orders = parser.parse_args().orders
    # What the controller logs is no part of the table.
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        took = asyncio.run(_measure(Path(directory), orders))
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    load = os.getloadavg()[0]
    print("| orders | p50 | p90 | p99 | longest | load of the machine |")
    print("|---:|---:|---:|---:|---:|---:|")
    figures = " | ".join(f"{value * 1000:.0f} ms" for value in (cuts[49], cuts[89], cuts[98]))
    print(f"| {len(took)} | {figures} | {max(took) * 1000:.0f} ms | {load:.1f} |")


async def _measure(directory: Path, orders: int) -> list[float]:
    installation = await install(directory / "home")
    agent = AgentProcess(directory / "machine")
    try:
        tenant = await installation.add_tenant()
        await agent.enroll(await token_text(installation, tenant))
        await agent.start()
        await agent.until_status(link="connected")
        stub: Any = JobServiceStub(installation.admin())
        took = [await _one(installation, agent, stub) for _ in range(WARM_UP + orders)]
        return took[WARM_UP:]
    finally:
        if agent.alive:
            await agent.stop()
        await installation.close()


async def _one(installation: Installation, agent: AgentProcess, stub: Any) -> float:
    began = time.perf_counter()
    envelope = enveloped(installation, order_to(agent, RunProgram(("true",))))
    job = (await stub.SubmitOrder(SubmitOrderRequest(envelope=envelope))).job
    state = ""
    async for event in stub.WatchJob(WatchJobRequest(job_id=job.job_id)):
        state = event.task.state or state
    if state != "succeeded":
        raise RuntimeError(f"the order ended as {state}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
