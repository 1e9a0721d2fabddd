"""Who may call which method: the one table.

A method that is not in the table is refused to everybody, and the test-suite fails
when a service has a method without an entry. What a caller may see of an answer, the
tenants in its scope, is decided where the answer is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from controller.rpc.words import words_for
from protocol.errors import DeniedError
from protocol.identity import Identity, MachineIdentity, OperatorIdentity, Role


class Who(StrEnum):
    """A kind of caller."""

    ANYBODY = "anybody"
    MACHINE = "machine"
    ADMIN = Role.ADMIN.value
    TECHNICIAN = Role.TECHNICIAN.value
    HELPDESK = Role.HELPDESK.value
    AUDITOR = Role.AUDITOR.value


UNKNOWN = frozenset({Who.ANYBODY})
MACHINES = frozenset({Who.MACHINE})
ADMINS = frozenset({Who.ADMIN})
ACTING = ADMINS | {Who.TECHNICIAN}
ORDERING = ACTING | {Who.HELPDESK}
READING = ORDERING | {Who.AUDITOR}

TABLE: Mapping[str, frozenset[Who]] = {
    "/protocol.v1.EnrollmentService/Enroll": UNKNOWN,
    "/protocol.v1.EnrollmentService/Renew": UNKNOWN,
    "/protocol.v1.EnrollmentService/Rekey": UNKNOWN,
    "/protocol.v1.LinkService/Connect": MACHINES,
    "/protocol.v1.InventoryService/Report": MACHINES,
    "/protocol.v1.VaultService/Begin": MACHINES,
    "/protocol.v1.VaultService/Has": MACHINES,
    "/protocol.v1.VaultService/Put": MACHINES,
    "/protocol.v1.VaultService/Commit": MACHINES,
    "/protocol.v1.VaultService/Get": MACHINES | ORDERING,
    "/protocol.v1.VaultService/ListPoints": MACHINES | READING,
    "/protocol.v1.ParcelService/OpenParcel": ACTING,
    "/protocol.v1.ParcelService/ListPieces": MACHINES | ACTING,
    "/protocol.v1.ParcelService/SendPiece": MACHINES | ACTING,
    "/protocol.v1.ParcelService/FetchPiece": MACHINES | ACTING,
    "/protocol.v1.ParcelService/DropParcel": MACHINES | ACTING,
    "/protocol.v1.ProofService/CheckVault": READING,
    "/protocol.v1.ProofService/ScrubVault": ACTING,
    "/protocol.v1.ProofService/GetScrubStatus": READING,
    "/protocol.v1.ProofService/ReportDrill": MACHINES,
    "/protocol.v1.ProofService/ListDrills": READING,
    "/protocol.v1.ProofService/GetVaultStats": READING,
    "/protocol.v1.RetentionService/SetRules": ADMINS,
    "/protocol.v1.RetentionService/PlanForgetting": READING,
    "/protocol.v1.RetentionService/Forget": ADMINS,
    "/protocol.v1.RetentionService/BringBack": ADMINS,
    "/protocol.v1.RetentionService/HoldPoint": ACTING,
    "/protocol.v1.RetentionService/ReleasePoint": ADMINS,
    "/protocol.v1.RetentionService/TagPoint": ADMINS,
    "/protocol.v1.RetentionService/Unfreeze": ADMINS,
    "/protocol.v1.RetentionService/Collect": ADMINS,
    "/protocol.v1.ControllerService/Status": READING,
    "/protocol.v1.ControllerService/PrepareAuthority": ADMINS,
    "/protocol.v1.ControllerService/InstallAuthority": ADMINS,
    "/protocol.v1.ControllerService/ListAuthorities": READING,
    "/protocol.v1.ControllerService/DistrustAuthorities": ADMINS,
    "/protocol.v1.TenantService/AddTenant": ADMINS,
    "/protocol.v1.TenantService/ListTenants": READING,
    "/protocol.v1.TenantService/RotateTenantKey": ADMINS,
    "/protocol.v1.TenantService/ListTenantKeys": READING,
    "/protocol.v1.TenantService/ShareTenantKey": ADMINS,
    "/protocol.v1.TenantService/ListSharedKeys": READING,
    "/protocol.v1.OperatorService/AddOperator": ADMINS,
    "/protocol.v1.OperatorService/ListOperators": ADMINS | {Who.AUDITOR},
    "/protocol.v1.OperatorService/RevokeOperator": ADMINS,
    "/protocol.v1.OperatorService/GetRevocations": READING,
    "/protocol.v1.TokenService/CreateToken": ACTING,
    "/protocol.v1.TokenService/ListTokens": ACTING | {Who.AUDITOR},
    "/protocol.v1.TokenService/RevokeToken": ACTING,
    "/protocol.v1.MachineService/ListMachines": READING,
    "/protocol.v1.MachineService/FindMachines": READING,
    "/protocol.v1.MachineService/RenameMachine": ACTING,
    "/protocol.v1.MachineService/TagMachine": ACTING,
    "/protocol.v1.MachineService/RevokeMachine": ACTING,
    "/protocol.v1.MachineService/RetireMachine": ACTING,
    "/protocol.v1.MachineService/ApproveMachine": ACTING,
    "/protocol.v1.MachineService/GetInventory": READING,
    "/protocol.v1.MachineService/ListInventories": READING,
    "/protocol.v1.JobService/SubmitOrder": ORDERING,
    "/protocol.v1.JobService/ListJobs": READING,
    "/protocol.v1.JobService/GetJob": READING,
    "/protocol.v1.JobService/WatchJob": READING,
    "/protocol.v1.JobService/CancelJob": ORDERING,
    "/protocol.v1.JobService/ResumeJob": ACTING,
    "/protocol.v1.JobService/ApproveJob": ACTING,
    "/protocol.v1.JobService/RejectJob": ACTING,
    "/protocol.v1.JobService/GetOrder": ORDERING,
    "/protocol.v1.JobService/ListStanding": READING,
    "/protocol.v1.PolicyService/ApplyPolicy": ADMINS,
    "/protocol.v1.PolicyService/GetPolicy": READING,
    "/protocol.v1.PolicyService/ListPolicies": READING,
    "/protocol.v1.AuditService/ListAudit": READING,
    "/protocol.v1.AuditService/ListCheckpoints": READING,
    "/protocol.v1.AuditService/ProveAudit": READING,
}


CONNECT = "/protocol.v1.LinkService/Connect"

SIGNED = frozenset({"/protocol.v1.JobService/SubmitOrder", "/protocol.v1.JobService/ApproveJob"})
"""Methods whose request is signed by the operator's own key, and checked."""


WAITING_MAY = frozenset({CONNECT, "/protocol.v1.InventoryService/Report"})
"""What a clone may call that nobody approved yet: it is seen, and reads nothing."""


def check_waiting(method: str) -> None:
    """Raise `DeniedError` unless a machine that waits for approval may call this method."""
    if method not in WAITING_MAY:
        raise DeniedError("this machine waits for an operator's `stead machine approve`")


def kind_of(caller: Identity | None) -> Who | None:
    """The kind of a caller; None for one that has no business here."""
    match caller:
        case None:
            return Who.ANYBODY
        case MachineIdentity():
            return Who.MACHINE
        case OperatorIdentity(role=role):
            return Who(role.value)
        case _:
            return None


def only_looks(method: str) -> bool:
    """Whether a method changes nothing, or takes only what is signed by itself."""
    return Who.AUDITOR in TABLE.get(method, frozenset()) or method in SIGNED


def check_allowed(method: str, caller: Identity | None, *, looking: bool = False) -> None:
    """Raise `DeniedError` unless the table lets this caller call this method.

    `looking` is for a caller who has shown a key for connecting alone.
    """
    kind = kind_of(caller)
    doing = words_for(method)
    if kind is None or kind not in TABLE.get(method, frozenset()):
        others = sorted(TABLE.get(method, frozenset()) - {Who.ANYBODY})
        may = f"; {' or '.join(others)} may" if others else ""
        raise DeniedError(f"{kind or 'this certificate'} may not {doing}{may}")
    if looking and not only_looks(method):
        raise DeniedError(
            f"to {doing} takes the operator's own key, which the ssh-agent holds; this certificate "
            "is for connecting alone"
        )
