"""An order of every kind that says something in every field; few of them would come to anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from protocol.action import (
    Action,
    ApplyUpdates,
    CancelOrder,
    ChangeVaultSecret,
    CollectInventory,
    CompareLive,
    ControlPower,
    ControlService,
    GetFile,
    KillProcess,
    ListProcesses,
    ListServices,
    PlanBackup,
    PlanRestore,
    PlanUpdates,
    PutFile,
    ReadLog,
    ReadWitness,
    Rehome,
    ResetWitness,
    RestoreFiles,
    RestorePart,
    RevokeStanding,
    RunBackup,
    RunDrill,
    RunProgram,
    RunScript,
    ScanUpdates,
    SetBackup,
    TakeSnapshot,
    name_of,
)
from protocol.codec import to_ms
from protocol.ids import MachineId, OrderId, TenantId
from protocol.limits import Limits
from protocol.order import Order
from protocol.rollout import Amount, Rollout
from protocol.selection import Commands, CommandStream, Rules
from protocol.standing import Standing
from tests.fakes.link_server import fresh

NOTHING = "0" * 26
"""Of ids that nothing has."""

DAY = timedelta(days=1)
TERMS = frozenset({"standing", "rollout"})
"""The orders that say what orders of all kinds can say."""


def good_actions(machine: MachineId, place: Path) -> Iterator[Action]:
    """Every action; paths are below `place`, which holds a directory `data`."""
    data, nowhere = bytes(place / "data"), bytes(place / "nowhere")
    rules = Rules((b"*.tmp",), False, True, True, 1, 1 << 40, 1, 1 << 30)
    commands = Commands((CommandStream(b"/dump.sql", ("true",)),), ("true",), ("true",), 5)
    limits = Limits(1 << 30, 50, 1)
    sealed = b"x" * 80
    part = RestorePart(b"a", (sealed,), nowhere)
    restore = RestoreFiles(
        f"rp_{NOTHING}",
        b"a",
        (sealed,),
        nowhere,
        owners="keep",
        verify=True,
        parts=(part,),
        rules=b"x",
        skipped=(b"a",),
        limit_download=1 << 20,
        looked_at_ms=1,
    )
    yield RunProgram(("true",), b"in", {"A": "b"}, "/", limits)
    yield RunScript("sh", b"true", ("a",), b"in", {"A": "b"}, "/", limits, "nightly")
    yield CollectInventory(("cpu",))
    yield TakeSnapshot()
    yield ScanUpdates()
    yield PlanUpdates(("bash",))
    yield ApplyUpdates(b"{}")
    yield SetBackup((data,), "daily", rules, True, "weekly", (data,), 60, 1 << 20, commands)
    yield RunBackup((data,), rules, True, 1 << 20, commands)
    yield PlanBackup((data,), rules, commands)
    yield restore
    yield PlanRestore(
        restore.point_id, restore.path, restore.sealed_references, nowhere, parts=(part,)
    )
    yield CompareLive(f"rp_{NOTHING}", b"a", (sealed,), sealed, b"x")
    yield RunDrill(f"rp_{NOTHING}", 1, 1, (data,))
    yield CancelOrder(f"or_{NOTHING}")
    yield RevokeStanding(f"or_{NOTHING}", 1)
    yield ChangeVaultSecret({machine: sealed})
    yield ListServices(("cron",))
    yield ControlService("no-such-service", "restart")
    yield ListProcesses("no-such-process")
    yield KillProcess(2**22 + 1, "nobody")
    yield ReadLog(file="/var/log/no-such.log", since_ms=1, until_ms=2, lines=5)
    yield ReadLog(unit="no-such-unit", since_ms=1, until_ms=2, lines=5)
    yield ControlPower("look", "soon", 60)
    yield Rehome("host.example.com:1", "host.example.com:2")
    yield GetFile(data, f"pc_{NOTHING}", {machine: sealed}, 5, 5)
    yield PutFile(
        data + b"/file",
        f"pc_{NOTHING}",
        {machine: sealed},
        5,
        bytes(32),
        0o644,
        "root",
        "root",
        limit_rate=5,
    )
    yield ReadWitness(bytes(16))
    yield ResetWitness()


def good_orders(
    tenant: TenantId, machine: MachineId, place: Path, now: datetime
) -> Iterator[tuple[str, Order]]:
    """An order with every action, and one for each kind of terms."""
    for action in good_actions(machine, place):
        once = Order(
            id=OrderId(fresh("or")),
            tenant=tenant,
            machines=(machine,),
            action=action,
            issued_at=now,
            not_before=now,
            deliver_by=now + DAY,
            timeout=timedelta(seconds=10),
            reason="why",
        )
        yield name_of(action), once
        if isinstance(action, RunProgram):
            terms = Standing("daily", to_ms(now + DAY), 3, 60, "nightly")
            yield "standing", replace(once, id=OrderId(fresh("or")), standing=terms)
            rollout = Rollout((Amount(1), Amount(percent=100)), 60, Amount(1))
            yield (
                "rollout",
                replace(
                    once,
                    id=OrderId(fresh("or")),
                    rollout=rollout,
                    windows=("00:00-24:00",),
                    catch_up=True,
                    retry_of=OrderId(f"or_{NOTHING}"),
                ),
            )
