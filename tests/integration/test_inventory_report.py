"""Inventories from a machine's report to an operator's eyes, over real TLS."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import func, select

from controller import clock
from controller.db.schema import inventories, sections
from protocol.codec import to_ms
from protocol.errors import Code, SteadError
from protocol.identity import Role
from protocol.inventory import MAX_BODY_BYTES, body_hash, root_of
from protocol.v1 import inventory_pb2 as pb
from protocol.v1 import operator_pb2
from protocol.v1.inventory_pb2_grpc import InventoryServiceStub
from protocol.v1.operator_pb2_grpc import ControllerServiceStub, MachineServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused

if TYPE_CHECKING:
    from protocol.v1.operator_pb2_grpc import MachineServiceAsyncStub

Bodies = dict[str, bytes]


def body(name: str, **facts: object) -> bytes:
    envelope = {"section": name, "schema": 1, "status": "ok", "reason": None, "facts": facts}
    return msgspec.json.encode(envelope)


SYSTEM = body("system", os={"name": "Debian GNU/Linux 12 (bookworm)"})
UPDATES = body("updates", updates=[{"name": "openssl"}, {"name": "vim"}], security_count=1)
CPU = body("cpu", cores=2)
FIRST: Bodies = {"system": SYSTEM, "updates": UPDATES, "cpu": CPU}


class Reporter:
    """What an agent does to have its inventory known."""

    def __init__(self, installation: Installation, machine: Enrolled) -> None:
        self._stub = InventoryServiceStub(installation.machine_channel(machine))

    async def send(
        self, bodies: Bodies, *, at_ms: int | None = None, send: list[bytes] | None = None
    ) -> pb.ReportResponse:
        return await self._stub.Report(
            pb.ReportRequest(
                collected_at_ms=to_ms(clock.now()) if at_ms is None else at_ms,
                sections=[
                    pb.SectionHash(name=name, hash=body_hash(text)) for name, text in bodies.items()
                ],
                bodies=send or [],
            )
        )

    async def report(self, bodies: Bodies, *, at_ms: int | None = None) -> int:
        """Report until nothing is missing; the number of bodies that were sent."""
        first = await self.send(bodies, at_ms=at_ms)
        wanted = [text for text in bodies.values() if body_hash(text) in first.missing]
        if wanted:
            last = await self.send(bodies, at_ms=at_ms, send=wanted)
            assert not last.missing
        return len(wanted)


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    return await installation.new_machine(await installation.add_tenant())


@pytest.fixture
async def reporter(installation: Installation, machine: Enrolled) -> Reporter:
    return Reporter(installation, machine)


@pytest.fixture
async def operator(installation: Installation) -> MachineServiceAsyncStub:
    return MachineServiceStub(installation.admin())


async def test_bodies_are_asked_for_once_and_then_known(
    reporter: Reporter, machine: Enrolled, operator: MachineServiceAsyncStub
) -> None:
    assert await reporter.report(FIRST) == 3
    assert await reporter.report(FIRST) == 0
    answer = await operator.GetInventory(operator_pb2.GetInventoryRequest(machine_id=machine.id))
    assert {section.name: section.body for section in answer.sections} == FIRST
    assert [section.name for section in answer.sections] == ["cpu", "system", "updates"]


async def test_the_root_is_the_one_that_the_agent_computes(reporter: Reporter) -> None:
    answer = await reporter.send(FIRST)
    assert answer.root == root_of({name: body_hash(text) for name, text in FIRST.items()})


async def test_equal_machines_of_a_tenant_share_bodies_and_other_tenants_do_not(
    installation: Installation, machine: Enrolled, reporter: Reporter
) -> None:
    await reporter.report(FIRST)
    twin = await installation.new_machine(machine.tenant)
    assert await Reporter(installation, twin).report(FIRST) == 0
    stranger = await installation.new_machine(await installation.add_tenant("other"))
    assert await Reporter(installation, stranger).report(FIRST) == 3
    db = installation.controller.parts.db
    assert await db.read(lambda c: c.scalar(select(func.count()).select_from(sections))) == 6


async def test_history_grows_only_when_something_changed(
    installation: Installation,
    reporter: Reporter,
    machine: Enrolled,
    operator: MachineServiceAsyncStub,
) -> None:
    hour = timedelta(hours=1)
    start = clock.now() - 5 * hour
    second = {**FIRST, "cpu": body("cpu", cores=4)}
    third = {name: text for name, text in second.items() if name != "updates"}
    for number, bodies in enumerate((FIRST, FIRST, second, second, third)):
        await reporter.report(bodies, at_ms=to_ms(start + number * hour))
    listed = await operator.ListInventories(
        operator_pb2.ListInventoriesRequest(machine_id=machine.id)
    )
    assert [(e.collected_at_ms, list(e.changed)) for e in listed.entries] == [
        (to_ms(start + 4 * hour), ["updates"]),
        (to_ms(start + 2 * hour), ["cpu"]),
        (to_ms(start), ["cpu", "system", "updates"]),
    ]
    newest = await operator.ListInventories(
        operator_pb2.ListInventoriesRequest(machine_id=machine.id, limit=1)
    )
    assert [list(e.changed) for e in newest.entries] == [["updates"]]
    for hours, expected in ((0, FIRST), (1, FIRST), (2, second), (3, second), (4, third)):
        answer = await operator.GetInventory(
            operator_pb2.GetInventoryRequest(
                machine_id=machine.id, at_ms=to_ms(start + hours * hour)
            )
        )
        assert {section.name: section.body for section in answer.sections} == expected
    events = [entry.event for entry in await installation.audit(machine.tenant)]
    assert events.count("inventory_changed") == 3


async def test_a_time_before_the_first_inventory_has_none(
    reporter: Reporter, machine: Enrolled, operator: MachineServiceAsyncStub
) -> None:
    wanted = operator_pb2.GetInventoryRequest(machine_id=machine.id, at_ms=1)
    assert (await refused(operator.GetInventory(wanted))).code is Code.NOT_FOUND
    await reporter.report(FIRST)
    assert (await refused(operator.GetInventory(wanted))).code is Code.NOT_FOUND


async def test_some_sections_can_be_had_and_unknown_ones_are_named(
    reporter: Reporter, machine: Enrolled, operator: MachineServiceAsyncStub
) -> None:
    await reporter.report(FIRST)
    answer = await operator.GetInventory(
        operator_pb2.GetInventoryRequest(machine_id=machine.id, sections=["cpu"])
    )
    assert [(s.name, s.hash, s.body) for s in answer.sections] == [("cpu", body_hash(CPU), CPU)]
    refusal = await refused(
        operator.GetInventory(
            operator_pb2.GetInventoryRequest(machine_id=machine.id, sections=["gpu"])
        )
    )
    assert refusal.code is Code.NOT_FOUND
    assert "cpu, system, updates" in str(refusal)


@pytest.mark.parametrize("year_ms", [0, 365 * 86_400_000])
async def test_a_wrong_clock_does_not_disturb_the_order_of_history(
    reporter: Reporter, machine: Enrolled, operator: MachineServiceAsyncStub, year_ms: int
) -> None:
    """The clock says 1970 or next year; then the machine reports again, with the clock right."""
    now = to_ms(clock.now())
    await reporter.report(FIRST)
    second = {**FIRST, "cpu": body("cpu", cores=4)}
    await reporter.report(second, at_ms=now + year_ms if year_ms else 0)
    third = {**FIRST, "cpu": body("cpu", cores=8)}
    await reporter.report(third)
    listed = await operator.ListInventories(
        operator_pb2.ListInventoriesRequest(machine_id=machine.id)
    )
    times = [entry.collected_at_ms for entry in listed.entries]
    assert times == sorted(times, reverse=True)
    assert all(now <= at <= to_ms(clock.now()) for at in times)
    answer = await operator.GetInventory(
        operator_pb2.GetInventoryRequest(machine_id=machine.id, sections=["cpu"])
    )
    assert answer.sections[0].body == third["cpu"]


async def test_bodies_can_come_in_several_calls(reporter: Reporter) -> None:
    part = await reporter.send(FIRST, send=[CPU])
    assert set(part.missing) == {body_hash(SYSTEM), body_hash(UPDATES)}
    assert not (await reporter.send(FIRST, send=[SYSTEM, UPDATES])).missing


@pytest.mark.parametrize(
    "bad",
    [
        b"no json",
        b"[]",
        b'{"a":1',
        b"{}garbage",
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"",
        b'{"a":"' + bytes(b"a" * MAX_BODY_BYTES) + b'"}',
    ],
    ids=["text", "array", "cut", "garbage", "bytes", "deep", "empty", "long"],
)
async def test_a_body_that_is_no_json_object_is_refused(
    installation: Installation, reporter: Reporter, bad: bytes
) -> None:
    refusal = await refused(reporter.send({"cpu": bad}, send=[bad]))
    assert refusal.code is Code.INVALID
    db = installation.controller.parts.db
    for table in (sections, inventories):
        counted = select(func.count()).select_from(table)
        assert await db.read(lambda c, q=counted: c.scalar(q)) == 0  # type: ignore[misc]


async def test_a_body_must_fit_a_hash_of_the_manifest(reporter: Reporter) -> None:
    refusal = await refused(reporter.send({"cpu": CPU}, send=[SYSTEM]))
    assert refusal.code is Code.INVALID


@pytest.mark.parametrize(
    ("name", "size"),
    [("", 32), ("Cpu", 32), ("../cpu", 32), ("cpu\n", 32), ("cpu", 31), ("cpu", 0)],
)
async def test_a_manifest_has_plain_names_and_whole_hashes(
    installation: Installation, machine: Enrolled, name: str, size: int
) -> None:
    stub = InventoryServiceStub(installation.machine_channel(machine))
    request = pb.ReportRequest(sections=[pb.SectionHash(name=name, hash=bytes(size))])
    assert (await refused(stub.Report(request))).code is Code.INVALID


@pytest.mark.parametrize("count", [0, 257])
async def test_a_manifest_has_some_sections_and_not_too_many(
    installation: Installation, machine: Enrolled, count: int
) -> None:
    stub = InventoryServiceStub(installation.machine_channel(machine))
    hashes = [pb.SectionHash(name=f"s{n}", hash=bytes(32)) for n in range(count)]
    assert (await refused(stub.Report(pb.ReportRequest(sections=hashes)))).code is Code.INVALID
    twice = [pb.SectionHash(name="cpu", hash=bytes(32))] * 2
    assert (await refused(stub.Report(pb.ReportRequest(sections=twice)))).code is Code.INVALID


async def test_the_list_of_machines_sums_the_inventory_up(
    installation: Installation,
    reporter: Reporter,
    operator: MachineServiceAsyncStub,
    machine: Enrolled,
) -> None:
    def known(listed: operator_pb2.ListMachinesResponse) -> list[tuple[str, int, int]]:
        return [(m.system, m.updates, m.security_updates) for m in listed.machines]

    everything = operator_pb2.ListMachinesRequest()
    assert known(await operator.ListMachines(everything)) == [("", -1, -1)]
    await reporter.report(FIRST)
    summary = ("Debian GNU/Linux 12 (bookworm)", 2, 1)
    assert known(await operator.ListMachines(everything)) == [summary]
    await installation.new_machine(machine.tenant, "new")
    found = await operator.ListMachines(operator_pb2.ListMachinesRequest(tenant_id=machine.tenant))
    assert known(found) == [("", -1, -1), summary]
    await reporter.report({"system": body("system", os=[]), "updates": b'{"facts": null}'})
    assert ("", -1, -1) in known(await operator.ListMachines(everything))


async def test_machines_are_renamed_and_tagged_within_their_tenant(
    installation: Installation, operator: MachineServiceAsyncStub, machine: Enrolled
) -> None:
    other = await installation.new_machine(machine.tenant, "web-02")

    async def rename(machine_id: str, name: str) -> SteadError:
        request = operator_pb2.RenameMachineRequest(machine_id=machine_id, name=name)
        return await refused(operator.RenameMachine(request))

    await operator.RenameMachine(
        operator_pb2.RenameMachineRequest(machine_id=machine.id, name="front")
    )
    assert (await rename(other.id, "front")).code is Code.ALREADY_EXISTS
    for name in ("all", "not", "", "Front", "a b", "../x"):
        assert (await rename(other.id, name)).code is Code.INVALID
    tagged = await operator.TagMachine(
        operator_pb2.TagMachineRequest(machine_id=machine.id, add=["web", "old"])
    )
    assert list(tagged.tags) == ["old", "web"]
    tagged = await operator.TagMachine(
        operator_pb2.TagMachineRequest(machine_id=machine.id, add=["new"], remove=["old", "none"])
    )
    assert list(tagged.tags) == ["new", "web"]
    listed = await operator.ListMachines(operator_pb2.ListMachinesRequest())
    assert [(m.name, list(m.tags)) for m in listed.machines] == [
        ("front", ["new", "web"]),
        ("web-02", []),
    ]
    events = [entry.event for entry in await installation.audit(machine.tenant)]
    assert events[-3:] == ["machine_renamed", "machine_tagged", "machine_tagged"]


async def test_status_counts_what_the_caller_may_see(
    installation: Installation, machine: Enrolled
) -> None:
    other = await installation.add_tenant("other")
    await installation.new_machine(other)
    whole = await ControllerServiceStub(installation.admin()).Status(operator_pb2.StatusRequest())
    assert (whole.machines, whole.open_jobs, whole.linked_machines) == (2, 0, 0)
    assert whole.version
    assert whole.free_bytes > 0
    ann = installation.operator("ann", Role.AUDITOR, frozenset({other}))
    part = await ControllerServiceStub(installation.channel(*ann)).Status(
        operator_pb2.StatusRequest()
    )
    assert part.machines == 1
