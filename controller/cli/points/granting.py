"""Give one machine the right to read a part of a restore point, inside an order."""

from __future__ import annotations

from controller.cli.operator.tenant_keys import all_keys, key_of_machine, unproved
from controller.cli.points.opened import Opened
from protocol.errors import Code, NotFoundError, SteadError
from protocol.ids import MachineId
from protocol.v1.operator_pb2 import Machine
from protocol.vault.grant import Grant, seal_grant
from protocol.vault.reader import Span


def granted(opened: Opened, path: bytes, target: Machine, *, may_lack: bool = False) -> bytes:
    """The right to read `path`, sealed to the machine that is to read.

    NOT_FOUND when the restore point has nothing there, unless it `may_lack` it.
    """
    if target.tenant_id != opened.tenant:
        raise SteadError(
            f"{target.name} belongs to another tenant than the restore point",
            code=Code.WRONG_TENANT,
        )
    if not target.sealing_key:
        raise SteadError(
            f"{target.name} never held a link, so nothing can be sealed to it; start its agent",
            code=Code.PRECONDITION,
        )
    keys = all_keys(opened.connection, opened.tenant)
    machine = MachineId(target.machine_id)
    if key_of_machine(keys, target) is None:
        raise unproved(target)
    # A machine has the secret of one key; under which it works may change any moment.
    is_its_own = len(keys.keys) == 1 and opened.point.scope == "tenant"
    grant = Grant(
        _spans(opened, path, may_lack=may_lack),
        b"" if is_its_own else opened.secret.convergence,
    )
    return seal_grant(
        grant, target.sealing_key, tenant=opened.tenant, machine=machine, point=opened.point.id
    )


def _spans(opened: Opened, path: bytes, *, may_lack: bool) -> tuple[Span, ...]:
    try:
        return opened.reader.subtree(opened.root, path)
    except NotFoundError:
        if not may_lack:
            raise
        return ()
