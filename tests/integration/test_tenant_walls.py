"""Whoever names another tenant's things is answered as if there were no such thing.

Every method is called with every field that can name something: with an id of one's own, of
another tenant, and of nobody. A field whose own id makes no difference is an error as well:
such a call would have come to nothing for another reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from controller.rpc.authorisation import TABLE, Who
from protocol.action import RevokeStanding
from protocol.codec import encode_envelope, encode_order
from protocol.errors import Code
from protocol.identity import Role
from protocol.ids import MachineId, TenantId
from protocol.order import sign
from protocol.v1 import inventory_pb2
from tests.integration.conftest import Installation
from tests.integration.every_request import FRESH, Case, Pick, cases
from tests.integration.on_link import said_on_link
from tests.integration.refusal import refusal_of
from tests.integration.services import Method, methods
from tests.integration.test_link import order_for
from tests.integration.two_tenants import Furnished, Side, furnish, nobody, rows_of, signed_point

OPEN = {
    # Who holds a token has its secret; see `test_enrollment`.
    "/protocol.v1.EnrollmentService/Enroll",
    # Who calls these is whom a certificate names; its key signs the request.
    "/protocol.v1.EnrollmentService/Renew",
    "/protocol.v1.EnrollmentService/Rekey",
}
"""Methods that are called by nobody of a tenant yet."""

TO_OPERATORS = {
    # A machine takes its own tenant's parcels alone, so another's id among them says nothing.
    ("OpenParcel", "OpenParcelRequest.machine_ids"),
}
TO_MACHINES = {
    # A machine's tenant and the machine itself are its certificate's, whatever it names.
    ("DropParcel", "DropParcelRequest.tenant_id"),
    ("FetchPiece", "FetchPieceRequest.tenant_id"),
    ("FetchPiece", "FetchPieceRequest.sender_id"),
    ("ListPieces", "ListPiecesRequest.tenant_id"),
    ("ListPieces", "ListPiecesRequest.sender_id"),
    ("ReportDrill", "Drill.machine_id"),
    ("SendPiece", "SendPieceRequest.tenant_id"),
    # Kept as it is said: a restore point may be gone by the time that a drill of it is told.
    ("ReportDrill", "Drill.point_id"),
}
"""Where one's own id makes no difference to another's or to nobody's, and why."""


@dataclass(frozen=True)
class Answer:
    """What a call came to: an error's code and words, or what was said in bytes."""

    code: str
    said: bytes

    def without(self, side: Side, kinds: Iterable[str]) -> Answer:
        """With what was said in the call itself blotted out."""
        said = self.said
        for kind in kinds:
            word, blot = side.words()[kind], f"<{kind}>".encode()
            said = said.replace(word, blot).replace(word.hex().encode(), blot)
        return Answer(self.code, said)


@dataclass(frozen=True)
class Caller:
    """Somebody of one tenant who makes calls."""

    installation: Installation
    channel: grpc.aio.Channel
    ours: Side

    async def answer(self, case: Case, sides: Mapping[str, Side]) -> Answer:
        """Call with one's own ids, but for those paths that take another side's."""

        def pick(path: str, kind: str) -> str | bytes:
            side = sides.get(path, nobody() if kind.startswith(FRESH) else self.ours)
            found: str | bytes = getattr(side, kind.removeprefix(FRESH))
            return found

        return await self.send(case.method, case.make(pick))

    async def send(self, method: Method, request: Message) -> Answer:
        try:
            if method.descriptor.name == "Connect":
                answers = await said_on_link(self.channel, request)
            else:
                answers = await method.call(self.channel, request)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            if refusal is None or refusal.code is Code.INTERNAL:
                raise
            return Answer(refusal.code.value, str(refusal).encode())
        if answers and isinstance(answers[0], inventory_pb2.ReportResponse):
            answers[0].ClearField("root")  # reckoned from what was said itself
        return Answer("", b"".join(one.SerializeToString() for one in answers))


class Walk:
    """Tries cases, and notes in words what is wrong."""

    def __init__(self, caller: Caller, theirs: Furnished) -> None:
        self._caller = caller
        self._theirs = theirs
        self._tried: set[tuple[str, str]] = set()
        self._telling: set[tuple[str, str]] = set()
        self.wrong: list[str] = []

    async def through(self, found: Sequence[Case], silent: set[tuple[str, str]]) -> list[str]:
        """What is wrong with all of them. `silent` is where one's own id says nothing."""
        for case in found:
            paths = {p: kind for p, kind in case.paths().items() if not kind.startswith(FRESH)}
            # A thing that is gone after the first time is often named last.
            for path, kind in reversed(paths.items()):
                await self._one(case, {path: kind}, path)
            if len(paths) > 1:
                await self._one(case, paths, "all")
            elif not paths:
                self._look(case, await self._caller.answer(case, {}))
            self._look(case, await self._caller.send(case.method, case.method.request()))
        for case in found:
            for path, kind in case.paths().items():
                if kind.startswith(FRESH):
                    await self._taken(case, path, kind.removeprefix(FRESH))
        for name, path in sorted(self._tried ^ self._telling ^ silent):
            self.wrong.append(f"{name}: is {path} of one's own taken, or refused as any other?")
        return self.wrong

    async def _one(self, case: Case, paths: Mapping[str, str], path: str) -> None:
        theirs, none, kinds = self._theirs.to_operators, nobody(), paths.values()
        unknown = await self._caller.answer(case, dict.fromkeys(paths, none))
        foreign = await self._caller.answer(case, dict.fromkeys(paths, theirs))
        if foreign.without(theirs, kinds) != unknown.without(none, kinds):
            self.wrong.append(f"{case}: {path} of another: {foreign}; of nobody: {unknown}")
        self._look(case, foreign.without(theirs, kinds))
        if path not in paths:
            return
        self._tried.add((case.method.descriptor.name, path))
        before = await self._rows()
        own = await self._caller.answer(case, {})
        is_telling = own.without(self._caller.ours, kinds) != unknown.without(none, kinds)
        if not is_telling:
            acted = await self._rows() != before
            is_telling = acted != await self._acts(case, {path: none})
        if is_telling:
            self._telling.add((case.method.descriptor.name, path))

    async def _acts(self, case: Case, sides: Mapping[str, Side]) -> bool:
        """Whether a call changes anything of the caller's own tenant."""
        before = await self._rows()
        await self._caller.answer(case, sides)
        return await self._rows() != before

    async def _taken(self, case: Case, path: str, kind: str) -> None:
        theirs = self._theirs.to_operators
        answer = await self._caller.answer(case, {path: theirs})
        self._look(case, answer.without(theirs, [kind]))

    async def _rows(self) -> dict[str, list[Any]]:
        return await rows_of(self._caller.installation, self._caller.ours.tenant)

    def _look(self, case: Case, answer: Answer) -> None:
        for what, word in self._theirs.words().items():
            if word in answer.said:
                self.wrong.append(f"{case}: the answer has another tenant's {what}: {answer}")


def called_by(who: Who) -> list[Method]:
    return [one for one in methods() if who in TABLE[one.path]]


def test_an_administrator_or_a_machine_may_call_whatever_anybody_may() -> None:
    tried = {method.path for who in (Who.ADMIN, Who.MACHINE) for method in called_by(who)}
    assert tried | OPEN == {method.path for method in methods()} == set(TABLE)


@pytest.mark.timeout(600)
async def test_an_operator_meets_another_tenants_things_as_if_there_were_none(
    installation: Installation,
) -> None:
    ours, theirs = await furnish(installation, "ours"), await furnish(installation, "theirs")
    tenant = TenantId(ours.to_operators.tenant)
    key, certificate = installation.operator("ann", Role.ADMIN, frozenset({tenant}))

    def signed(pick: Pick, what: str) -> bytes:
        made = replace(
            order_for(tenant),
            tenant=TenantId(str(pick("Order.tenant_id", "tenant"))),
            machines=(MachineId(str(pick("Order.machine_ids", "machine"))),),
        )
        if what == "a revocation":
            named = str(pick("RevokeStanding.order_id", "standing"))
            made = replace(made, action=RevokeStanding(named))
        return encode_envelope(sign(encode_order(made), key=key, certificate=certificate))

    caller = Caller(installation, installation.channel(key, certificate), ours.to_operators)
    before = await rows_of(installation, theirs.to_operators.tenant)
    found = [case for method in called_by(Who.ADMIN) for case in cases(method, signed)]
    wrong = await Walk(caller, theirs).through(found, TO_OPERATORS)
    assert wrong == []
    assert await rows_of(installation, theirs.to_operators.tenant) == before


@pytest.mark.timeout(600)
async def test_a_machine_meets_another_tenants_things_as_if_there_were_none(
    installation: Installation,
) -> None:
    ours, theirs = await furnish(installation, "ours"), await furnish(installation, "theirs")
    channel = installation.machine_channel(ours.machine)

    def signed(pick: Pick, what: str) -> bytes:
        session = str(pick("CommitRequest.session_id", "session"))
        return signed_point(ours.machine, session.replace("vs_", "rp_"))

    caller = Caller(installation, channel, ours.to_machines)
    before = await rows_of(installation, theirs.to_operators.tenant)
    found = [case for method in called_by(Who.MACHINE) for case in cases(method, signed)]
    # What begins a backup ends the one before.
    found.sort(key=lambda case: case.method.descriptor.name == "Begin")
    wrong = await Walk(caller, theirs).through(found, TO_MACHINES)
    assert wrong == []
    assert await rows_of(installation, theirs.to_operators.tenant) == before
