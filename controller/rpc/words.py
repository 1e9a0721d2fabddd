"""What operators do by calling a method, in words for those who may not."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "VaultService/Get": "read the vault",
    "VaultService/ListPoints": "list restore points",
    "ParcelService/OpenParcel": "send or fetch files",
    "ParcelService/ListPieces": "send or fetch files",
    "ParcelService/SendPiece": "send files",
    "ParcelService/FetchPiece": "fetch files",
    "ParcelService/DropParcel": "send or fetch files",
    "ProofService/CheckVault": "check the vault",
    "ProofService/ScrubVault": "scrub the vault",
    "ProofService/GetScrubStatus": "see how the scrub of the vault goes on",
    "ProofService/ListDrills": "list drills",
    "ProofService/GetVaultStats": "see what the vault holds",
    "RetentionService/SetRules": "set retention rules",
    "RetentionService/PlanForgetting": "see what retention rules would forget",
    "RetentionService/Forget": "forget restore points",
    "RetentionService/BringBack": "bring back restore points",
    "RetentionService/HoldPoint": "hold restore points",
    "RetentionService/ReleasePoint": "release restore points from a hold",
    "RetentionService/TagPoint": "tag restore points",
    "RetentionService/Unfreeze": "end a freeze",
    "RetentionService/Collect": "collect what no restore point needs",
    "ControllerService/Status": "see how the controller is",
    "ControllerService/PrepareAuthority": "rotate the issuing authority",
    "ControllerService/InstallAuthority": "rotate the issuing authority",
    "ControllerService/ListAuthorities": "list issuing authorities",
    "ControllerService/DistrustAuthorities": "take back an issuing authority",
    "TenantService/AddTenant": "add tenants",
    "TenantService/ListTenants": "list tenants",
    "TenantService/RotateTenantKey": "rotate recovery keys",
    "TenantService/ListTenantKeys": "list recovery keys",
    "TenantService/ShareTenantKey": "share recovery keys",
    "TenantService/ListSharedKeys": "receive recovery keys",
    "OperatorService/AddOperator": "add operators",
    "OperatorService/ListOperators": "list operators",
    "OperatorService/RevokeOperator": "revoke operators",
    "OperatorService/GetRevocations": "read the list of revoked operators",
    "TokenService/CreateToken": "make tokens",
    "TokenService/ListTokens": "list tokens",
    "TokenService/RevokeToken": "revoke tokens",
    "MachineService/ListMachines": "list machines",
    "MachineService/FindMachines": "find machines",
    "MachineService/RenameMachine": "rename machines",
    "MachineService/TagMachine": "tag machines",
    "MachineService/RevokeMachine": "revoke machines",
    "MachineService/RetireMachine": "retire machines",
    "MachineService/ApproveMachine": "approve machines",
    "MachineService/GetInventory": "read inventories",
    "MachineService/ListInventories": "list inventories",
    "JobService/SubmitOrder": "hand in orders",
    "JobService/ListJobs": "list jobs",
    "JobService/GetJob": "look at jobs",
    "JobService/WatchJob": "watch jobs",
    "JobService/CancelJob": "cancel jobs",
    "JobService/ResumeJob": "resume halted rollouts",
    "JobService/ApproveJob": "approve orders",
    "JobService/RejectJob": "reject orders",
    "JobService/GetOrder": "read orders whole",
    "JobService/ListStanding": "list standing orders",
    "PolicyService/ApplyPolicy": "apply policies",
    "PolicyService/GetPolicy": "read policies",
    "PolicyService/ListPolicies": "read policies",
    "AuditService/ListAudit": "read the audit log",
    "AuditService/ListCheckpoints": "read the audit log's checkpoints",
    "AuditService/ProveAudit": "have the audit log proved",
}
"""Of every method that some operator may call."""

_PACKAGE = "/protocol.v1."


def words_for(method: str) -> str:
    """What somebody does by calling a method; its name where only machines call it.

    >>> words_for("/protocol.v1.JobService/ResumeJob"), words_for("/protocol.v1.X/Y")
    ('resume halted rollouts', 'call Y')
    """
    found = WORDS.get(method.removeprefix(_PACKAGE))
    return found or f"call {method.rpartition('/')[2]}"
