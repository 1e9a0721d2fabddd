"""Every method with every wrong certificate, over real mutual TLS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

import protocol.v1
from controller import clock
from controller.authority.certificates import (
    Issuer,
    certify_machine,
    certify_operator,
    make_issuing,
    make_root,
)
from controller.authority.keys import new_key, new_serial
from controller.rpc.authorisation import TABLE, Who, check_allowed
from controller.rpc.words import WORDS, words_for
from protocol.errors import Code, DeniedError
from protocol.identity import (
    ControllerIdentity,
    Identity,
    MachineIdentity,
    OperatorIdentity,
    Role,
)
from protocol.ids import MachineId, TenantId
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refusal_of
from tests.integration.services import FILES, Method, methods

OPEN = {method.path for method in methods() if "EnrollmentService" in method.path}
CLOSED = [method for method in methods() if method.path not in OPEN]
REFUSED_AT_THE_DOOR = "refused at the door"


def test_every_method_has_an_entry_and_no_entry_is_left_over() -> None:
    assert {method.path for method in methods()} == set(TABLE)


def test_no_file_of_the_protocol_is_forgotten() -> None:
    folder = Path(next(iter(protocol.v1.__path__)))
    names = {path.stem.removesuffix("_pb2") for path in folder.glob("*_pb2.py")}
    assert names == {Path(file.DESCRIPTOR.name).stem for file in FILES}


def test_what_the_table_does_not_name_is_denied_to_everybody() -> None:
    tenant, machine = TenantId("tn_" + "0" * 26), MachineId("mc_" + "0" * 26)
    callers: list[Identity | None] = [None, ControllerIdentity(), MachineIdentity(tenant, machine)]
    callers += [OperatorIdentity("ann", role, None) for role in Role]
    for caller in callers:
        for method in ("/protocol.v1.TenantService/DropTenant", "", "/"):
            with pytest.raises(DeniedError):
                check_allowed(method, caller)
    for method in TABLE:
        with pytest.raises(DeniedError):
            check_allowed(method, ControllerIdentity())


def test_what_an_operator_may_not_do_has_words() -> None:
    operators = {Who(role.value) for role in Role}
    named = {method for method, who in TABLE.items() if who & operators}
    assert {f"/protocol.v1.{one}" for one in WORDS} == named
    with pytest.raises(DeniedError, match="helpdesk may not resume halted rollouts"):
        check_allowed(
            "/protocol.v1.JobService/ResumeJob", OperatorIdentity("hal", Role.HELPDESK, None)
        )


async def verdict(method: Method, channel: grpc.aio.Channel) -> str:
    """How the controller met a call: "in", or who turned it away."""
    try:
        await method.call(channel, method.request())
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        if refusal is None:
            unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
            return REFUSED_AT_THE_DOOR if unavailable else str(error.code())
        if refusal.code is Code.INTERNAL:
            return "broken"
        if refusal.code is Code.DENIED and f" may not {words_for(method.path)}" in str(refusal):
            return "denied"
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return str(refusal.code)
    return "in"


async def verdicts(channel: grpc.aio.Channel) -> dict[str, str]:
    return {method.path: await verdict(method, channel) for method in CLOSED}


def expected(who: Who) -> dict[str, str]:
    return {m.path: "in" if who in TABLE[m.path] else "denied" for m in CLOSED}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("scope", ["all tenants", "one tenant"])
async def test_an_operator_may_call_what_the_table_says(
    installation: Installation, role: Role, scope: str
) -> None:
    tenants = None if scope == "all tenants" else frozenset({await installation.add_tenant()})
    channel = installation.channel(*installation.operator("ann", role, tenants))
    assert await verdicts(channel) == expected(Who(role.value))


async def test_a_machine_may_call_what_the_table_says(installation: Installation) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    assert await verdicts(installation.machine_channel(machine)) == expected(Who.MACHINE)


async def test_enrollment_alone_is_behind_the_open_port(installation: Installation) -> None:
    for method in methods():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method.call(installation.enrollment_channel(), method.request())
        missing = caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert missing == (method.path not in OPEN), method.path
    for method in methods():
        if method.path in OPEN:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method.call(installation.admin(), method.request())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


Wrong = Callable[[Installation, Enrolled], Awaitable[grpc.aio.Channel]]


async def nobody(installation: Installation, machine: Enrolled) -> grpc.aio.Channel:
    return installation.channel()


async def another_root(installation: Installation, machine: Enrolled) -> grpc.aio.Channel:
    key, now = new_key(), clock.now()
    root = Issuer(make_root(key, serial=new_serial(), now=now), key)
    identity = OperatorIdentity("admin", Role.ADMIN, None)
    own = new_key()
    leaf = certify_operator(root, own.public_key(), identity, serial=new_serial(), now=now)
    return installation.channel(own, leaf, root.certificate)


async def another_root_of_the_same_name(
    installation: Installation, machine: Enrolled
) -> grpc.aio.Channel:
    key, now = new_key(), clock.now()
    serial = installation.root.serial_number
    root = Issuer(make_root(key, serial=serial, now=now), key)
    own, issuing_key = new_key(), new_key()
    issuing = make_issuing(root, issuing_key.public_key(), serial=new_serial(), now=now)
    identity = MachineIdentity(machine.tenant, machine.id)
    leaf = certify_machine(
        Issuer(issuing, issuing_key), own.public_key(), identity, serial=new_serial(), now=now
    )
    return installation.channel(own, leaf, issuing)


async def an_expired_operator(installation: Installation, machine: Enrolled) -> grpc.aio.Channel:
    key = new_key()
    leaf = certify_operator(
        installation.root_issuer,
        key.public_key(),
        OperatorIdentity("ann", Role.ADMIN, None),
        serial=new_serial(),
        now=clock.now() - timedelta(days=2),
        lifetime=timedelta(days=1),
    )
    return installation.channel(key, leaf)


async def a_machine_without_its_issuer(
    installation: Installation, machine: Enrolled
) -> grpc.aio.Channel:
    return installation.channel(machine.key, machine.chain[0])


async def the_controllers_own_certificate(
    installation: Installation, machine: Enrolled
) -> grpc.aio.Channel:
    key, chain = installation.serving.current(clock.now())
    return installation.channel(key, *chain)


async def an_authority_as_somebody(
    installation: Installation, machine: Enrolled
) -> grpc.aio.Channel:
    issuing = installation.controller.parts.authority.issuing
    return installation.channel(issuing.key, issuing.certificate)


@pytest.mark.parametrize(
    "wrong",
    [
        nobody,
        another_root,
        another_root_of_the_same_name,
        an_expired_operator,
        a_machine_without_its_issuer,
        the_controllers_own_certificate,
        an_authority_as_somebody,
    ],
)
async def test_tls_refuses_whom_the_root_does_not_vouch_for(
    installation: Installation, wrong: Wrong
) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    channel = await wrong(installation, machine)
    for method in CLOSED[:3]:
        assert await verdict(method, channel) == REFUSED_AT_THE_DOOR


async def issued_operator(installation: Installation, machine: Enrolled) -> grpc.aio.Channel:
    """What a hacked controller would make: an operator signed by the issuing authority."""
    issuing = installation.controller.parts.authority.issuing
    key = new_key()
    leaf = certify_operator(
        issuing,
        key.public_key(),
        OperatorIdentity("admin", Role.ADMIN, None),
        serial=new_serial(),
        now=clock.now(),
    )
    return installation.channel(key, leaf, issuing.certificate)


async def rooted_machine(installation: Installation, machine: Enrolled) -> grpc.aio.Channel:
    """A machine signed by the root, which signs none."""
    key = new_key()
    leaf = certify_machine(
        installation.root_issuer,
        key.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=clock.now(),
    )
    return installation.channel(key, leaf)


async def foreign_issuer(installation: Installation, machine: Enrolled) -> grpc.aio.Channel:
    """A machine of an issuing authority that the root signed for another controller."""
    key, own = new_key(), new_key()
    now = clock.now()
    issuing = make_issuing(installation.root_issuer, key.public_key(), serial=new_serial(), now=now)
    leaf = certify_machine(
        Issuer(issuing, key),
        own.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=now,
    )
    return installation.channel(own, leaf, issuing)


@pytest.mark.parametrize("wrong", [issued_operator, rooted_machine, foreign_issuer])
async def test_a_chain_that_tls_takes_is_not_believed_when_the_wrong_authority_signed(
    installation: Installation, wrong: Wrong
) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    found = await verdicts(await wrong(installation, machine))
    assert set(found.values()) == {str(Code.UNAUTHENTICATED)}
