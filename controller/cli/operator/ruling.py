"""Tenants' policies, as the command line keeps them, judges by them and passes them on.

Whoever signs an order sends along the newest policy that was seen with the profile: who
carries orders cannot keep it from the machines that judge them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from controller.authority.durable import make_directory, replace_durably
from controller.cli.operator.connection import Connection
from controller.cli.output.emit import emit, note
from protocol.action import Action, name_of
from protocol.approval import check_may_order
from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.policy import Policy, no_policy, terms_for
from protocol.policy_codec import read_policy
from protocol.v1.job_pb2 import Job
from protocol.v1.policy_pb2 import GetPolicyRequest


@dataclass(frozen=True, slots=True)
class Ruled:
    """A tenant's newest policy that is known, and its signed bytes; empty for none."""

    policy: Policy
    data: bytes


def newest_policy(connection: Connection, tenant: TenantId) -> Ruled:
    """The newest policy of a tenant that is known here or at the controller.

    What the controller says is kept when it is newer, and is never believed to be the
    newest. Raises BAD_SIGNATURE for one that this root did not sign.
    """
    path = connection.home.policies / tenant
    own = _read(connection, tenant, path.read_bytes() if os.path.lexists(path) else b"")
    try:
        request = GetPolicyRequest(tenant_id=tenant)
        offered = _read(connection, tenant, connection.policies.GetPolicy(request).policy)
    except grpc.RpcError as error:
        if connection.explain(error).code is not Code.UNSUPPORTED:
            raise
        return own  # an older release has none
    if offered.policy.version <= own.policy.version:
        return own
    keep_policy(connection, tenant, offered.data)
    return offered


def keep_policy(connection: Connection, tenant: TenantId, data: bytes) -> None:
    """Keep a policy with the profile."""
    make_directory(connection.home.policies)
    replace_durably(connection.home.policies / tenant, data)


def check_ordering(
    connection: Connection, tenant: TenantId, action: Action, *, propose: bool
) -> Ruled:
    """The tenant's policy, or raise DENIED when this operator's order would not count by it."""
    ruled = newest_policy(connection, tenant)
    check_may_order(action, connection.operator, ruled.policy, proposing=propose)
    return ruled


def say_approval(ruled: Ruled, action: Action, machines: int, connection: Connection) -> None:
    """Tell the person that others will have to sign."""
    terms = terms_for(action, ruled.policy)
    own = connection.operator.role in terms.roles
    if missing := terms.needed(machines) - own:
        others = "another operator" if missing == 1 else f"{missing} other operators"
        note(f"{name_of(action)} on {machines} machines takes the signature of {others}")


def say_awaiting(jobs: Sequence[Job], output: str, *, waits: bool) -> None:
    """Say what there is to do with orders that others have still to sign.

    Raises NEEDS_APPROVAL with that, unless somebody waits; scripts get the jobs as records.
    """
    awaiting = [job for job in jobs if is_awaiting(job)]
    for job in jobs:
        if awaiting and job not in awaiting:
            note(f"{job.job_id} goes on; watch it with `stead job watch {job.job_id}`")
    for job in awaiting[:-1] if not waits else awaiting:
        note(_awaits(job))
    if awaiting and not waits:
        if output != "table":
            emit([_row(job) for job in jobs], output, columns=())
        raise SteadError(_awaits(awaiting[-1]), code=Code.NEEDS_APPROVAL)


def _row(job: Job) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "machines": len(job.tasks),
        "awaiting": is_awaiting(job),
        "signatures_missing": job.signatures_missing,
    }


def _awaits(job: Job) -> str:
    missing = job.signatures_missing
    others = "another operator" if missing == 1 else f"{missing} other operators"
    return (
        f"{job.job_id} awaits the signature of {others}: `stead job approve {job.job_id}`; "
        f"`stead job watch {job.job_id}` follows it"
    )


def is_awaiting(job: Job) -> bool:
    """Whether somebody has still to sign the order."""
    return any(task.state == "awaiting" for task in job.tasks)


def _read(connection: Connection, tenant: TenantId, data: bytes) -> Ruled:
    if not data:
        return Ruled(no_policy(tenant), b"")
    return Ruled(read_policy(data, connection.root, tenant=tenant), data)
