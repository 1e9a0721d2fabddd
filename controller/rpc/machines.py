"""`MachineService`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from controller import clock
from controller.authority import holders
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.fleet import history, machines
from controller.fleet.facts import read_facts
from controller.fleet.fitting import Verdicts, fitting
from controller.fleet.presence import Presence
from controller.rpc.interceptor import Context, operator_calling
from protocol.ceiling import Ceiling
from protocol.codec import from_ms, to_ms
from protocol.errors import Code
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import MachineServiceServicer


class Machines(MachineServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database, trust: Trust, presence: Presence) -> None:
        self._db = db
        self._trust = trust
        self._presence = presence
        self._verdicts = Verdicts()

    async def ListMachines(
        self, request: pb.ListMachinesRequest, context: Context
    ) -> pb.ListMachinesResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        found = await self._db.read(
            lambda c: machines.listed(
                c, operator, request.tenant_id, named=request.named, brief=request.brief
            )
        )
        # Ten thousand take a second, in which the links would stand still.
        return await asyncio.to_thread(self._told, found)

    def _told(self, found: Sequence[machines.Machine]) -> pb.ListMachinesResponse:
        return pb.ListMachinesResponse(
            machines=[
                _to_pb(
                    machine,
                    self._presence.linked(machine.id),
                    self._presence.ceilings.get(machine.id),
                )
                for machine in found
            ]
        )

    async def FindMachines(
        self, request: pb.FindMachinesRequest, context: Context
    ) -> pb.FindMachinesResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        facts = read_facts(request.facts)
        found = await self._db.read(
            lambda c: fitting(c, operator, request.tenant_id, facts, self._verdicts)
        )
        return pb.FindMachinesResponse(
            answers=[
                pb.FactAnswer(
                    fitting_ids=[machine for machine, fits in one.items() if fits],
                    unfitting_ids=[machine for machine, fits in one.items() if not fits],
                )
                for one in found
            ]
        )

    async def RenameMachine(
        self, request: pb.RenameMachineRequest, context: Context
    ) -> pb.RenameMachineResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        await self._db.write(
            lambda c: machines.rename(
                c, operator, request.machine_id, request.name, now=clock.now()
            )
        )
        return pb.RenameMachineResponse()

    async def TagMachine(
        self, request: pb.TagMachineRequest, context: Context
    ) -> pb.TagMachineResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        tags = await self._db.write(
            lambda c: machines.tag(
                c,
                operator,
                request.machine_id,
                add=request.add,
                remove=request.remove,
                now=clock.now(),
            )
        )
        return pb.TagMachineResponse(tags=tags)

    async def RevokeMachine(
        self, request: pb.RevokeMachineRequest, context: Context
    ) -> pb.RevokeMachineResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        revoked = await self._db.write(
            lambda c: machines.revoke(c, operator, request.machine_id, now=clock.now())
        )
        self._trust.revoke(revoked)
        return pb.RevokeMachineResponse()

    async def RetireMachine(
        self, request: pb.RetireMachineRequest, context: Context
    ) -> pb.RetireMachineResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        retired = await self._db.write(
            lambda c: machines.retire(c, operator, request.machine_id, now=clock.now())
        )
        self._trust.revoke(retired, Code.RETIRED)
        return pb.RetireMachineResponse()

    async def ApproveMachine(
        self, request: pb.ApproveMachineRequest, context: Context
    ) -> pb.ApproveMachineResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        approved = await self._db.write(
            lambda c: holders.approve(
                c, operator, request.machine_id, older=request.older, now=clock.now()
            )
        )
        kept = await self._db.read(lambda c: holders.kept_of(c, approved.machine))
        self._trust.holding.moved_on(approved.machine, kept.generation)
        self._trust.approve(approved)
        return pb.ApproveMachineResponse()

    async def GetInventory(
        self, request: pb.GetInventoryRequest, context: Context
    ) -> pb.GetInventoryResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        at = from_ms(request.at_ms) if request.at_ms else None
        found = await self._db.read(
            lambda c: history.inventory_at(
                c, operator, request.machine_id, at=at, names=request.sections
            )
        )
        return pb.GetInventoryResponse(
            collected_at_ms=to_ms(found.collected_at),
            sections=[pb.Section(name=s.name, hash=s.hash, body=s.body) for s in found.sections],
        )

    async def ListInventories(
        self, request: pb.ListInventoriesRequest, context: Context
    ) -> pb.ListInventoriesResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        found = await self._db.read(
            lambda c: history.listed(
                c, operator, request.machine_id, request.limit, oldest=request.oldest
            )
        )
        return pb.ListInventoriesResponse(
            entries=[
                pb.InventoryEntry(
                    collected_at_ms=to_ms(entry.collected_at),
                    root=entry.root,
                    changed=entry.changed,
                )
                for entry in found
            ]
        )


def _to_pb(machine: machines.Machine, linked: bool, ceiling: Ceiling | None) -> pb.Machine:
    summary = machine.summary
    return pb.Machine(
        machine_id=machine.id,
        tenant_id=machine.tenant,
        name=machine.name,
        hostname=machine.hostname,
        state=machine.state,
        linked=linked,
        last_seen_at_ms=to_ms(machine.last_seen_at),
        enrolled_at_ms=to_ms(machine.enrolled_at),
        agent_version=machine.agent_version,
        tags=machine.tags,
        sealing_key=machine.sealing_key,
        sealing_proof=machine.sealing_proof,
        system=summary.system,
        updates=-1 if summary.updates is None else summary.updates,
        last_point_at_ms=to_ms(machine.last_point_at),
        last_drill_at_ms=to_ms(machine.last_drill_at),
        drill_state=machine.drill_state,
        frozen=machine.frozen,
        frozen_at_ms=to_ms(machine.frozen_at),
        clone_of=machine.clone_of,
        ceiling=None
        if ceiling is None
        else pb.MachineCeiling(
            deny=ceiling.deny,
            read_only=ceiling.read_only,
            policy_version=ceiling.policy_version,
        ),
        audit_alarm=machine.audit_alarm,
        security_updates=-1 if summary.security_updates is None else summary.security_updates,
    )
