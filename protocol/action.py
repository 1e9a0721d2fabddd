"""What an order can tell a machine to do.

One record per action; the field names are those of `protocol/v1/order.proto`, so
that `protocol.codec` needs no table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.limits import NO_LIMITS, Limits
from protocol.selection import BY_DEFAULT, NO_COMMANDS, Commands, Rules


@dataclass(frozen=True, slots=True)
class RunProgram:
    """Run one program without a shell."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class RunScript:
    """Run a script by an interpreter of `protocol.script`; `name` is for listings alone."""

    shell: str
    body: bytes
    arguments: tuple[str, ...] = ()
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    limits: Limits = NO_LIMITS
    name: str = ""


@dataclass(frozen=True, slots=True)
class CollectInventory:
    """Collect inventory sections (all when none is named) and report what changed."""

    sections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Collect inventory and add figures that change by the second."""


@dataclass(frozen=True, slots=True)
class ScanUpdates:
    """Ask the package manager which updates are on offer."""

    refresh: bool = True


@dataclass(frozen=True, slots=True)
class PlanUpdates:
    """Work out a transaction for these packages (all updates when none is named)."""

    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyUpdates:
    """Carry out the transaction of this plan (JSON), as long as it is still the same."""

    plan: bytes


@dataclass(frozen=True, slots=True)
class SetBackup:
    """Replace the machine's backup set; `limit_upload` in bytes a second, 0 for none."""

    paths: tuple[bytes, ...]
    schedule: str = ""
    rules: Rules = BY_DEFAULT
    seal_to_machine: bool = False
    drills: str = ""
    canaries: tuple[bytes, ...] = ()
    spread_s: int = 0
    limit_upload: int = 0
    commands: Commands = NO_COMMANDS


@dataclass(frozen=True, slots=True)
class RunBackup:
    """Make a restore point of these paths, or of the backup set when none is named."""

    paths: tuple[bytes, ...] = ()
    rules: Rules = BY_DEFAULT
    seal_to_machine: bool = False
    limit_upload: int = 0
    commands: Commands = NO_COMMANDS


@dataclass(frozen=True, slots=True)
class PlanBackup:
    """Say what a backup of these paths, or of the backup set, would take and run; do neither."""

    paths: tuple[bytes, ...] = ()
    rules: Rules = BY_DEFAULT
    commands: Commands = NO_COMMANDS


@dataclass(frozen=True, slots=True)
class RestorePart:
    """A subtree of a restore point, the right to read it, and the directory it goes to."""

    path: bytes
    sealed_references: tuple[bytes, ...]
    target: bytes


@dataclass(frozen=True, slots=True)
class RestoreFiles:
    """Write subtrees of a restore point into directories."""

    point_id: str
    path: bytes
    sealed_references: tuple[bytes, ...]
    target: bytes
    overwrite: bool = False
    owners: str = ""
    flags: bool = False
    verify: bool = False
    parts: tuple[RestorePart, ...] = ()
    delete_extra: bool = False
    rules: bytes = b""
    skipped: tuple[bytes, ...] = ()
    limit_download: int = 0
    looked_at_ms: int = 0

    @property
    def all_parts(self) -> tuple[RestorePart, ...]:
        """The first subtree and the others."""
        return (RestorePart(self.path, self.sealed_references, self.target), *self.parts)


@dataclass(frozen=True, slots=True)
class PlanRestore(RestoreFiles):
    """Say what the same restore would do, and change nothing."""


@dataclass(frozen=True, slots=True)
class CompareLive:
    """Compare a subtree of a restore point with what is there now; answer sealed."""

    point_id: str
    path: bytes
    sealed_references: tuple[bytes, ...]
    sealed_terms: bytes
    rules: bytes
    content: bool = False
    quick: bool = False


@dataclass(frozen=True, slots=True)
class RunDrill:
    """Restore some files of a restore point, compare them, and report; zeros are defaults."""

    point_id: str = ""
    max_files: int = 0
    max_bytes: int = 0
    canaries: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """End what another order has begun on the machine, or keep it from beginning."""

    order_id: str


@dataclass(frozen=True, slots=True)
class RevokeStanding:
    """End a standing order, which might have been taken in until `deliver_by_ms`."""

    order_id: str
    deliver_by_ms: int = 0


@dataclass(frozen=True, slots=True)
class ChangeVaultSecret:
    """Take another vault secret: for each machine, by its id, what `seal_secret` made."""

    sealed_secrets: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class ListServices:
    """Say which services there are, or more of those that are named."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlService:
    """`verb` is start, stop, restart, enable or disable."""

    name: str
    verb: str


@dataclass(frozen=True, slots=True)
class ListProcesses:
    """Say which processes there are, without their arguments."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class KillProcess:
    """Send a signal to the one process that has this identity as well as this number."""

    pid: int
    identity: str
    signal: str = "TERM"


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Show a log: of a unit, of a file with its rotations, or all of the journal.

    Times are in milliseconds since 1970, 0 for no bound; `lines` are the last, 0 for all.
    """

    unit: str = ""
    file: str = ""
    since_ms: int = 0
    until_ms: int = 0
    lines: int = 0
    follow: bool = False


@dataclass(frozen=True, slots=True)
class ControlPower:
    """`verb` is reboot or shutdown; people are told `notice`, and `delay_s` are seconds."""

    verb: str
    notice: str = ""
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class Rehome:
    """Connect to another controller of the same root; addresses are "host:port"."""

    link_address: str
    enrollment_address: str


@dataclass(frozen=True, slots=True)
class GetFile:
    """Send one regular file to the operator; for each machine, the key to seal it with, sealed."""

    path: bytes = b""
    parcel_id: str = ""
    sealed_keys: Mapping[str, bytes] = field(default_factory=dict)
    max_bytes: int = 0
    limit_rate: int = 0


@dataclass(frozen=True, slots=True)
class PutFile:
    """Write the content with this size and BLAKE3; `mode` 0 and no owner keep what there was."""

    path: bytes = b""
    parcel_id: str = ""
    sealed_keys: Mapping[str, bytes] = field(default_factory=dict)
    size: int = 0
    content_hash: bytes = b""
    mode: int = 0
    owner: str = ""
    group: str = ""
    make_directories: bool = False
    no_overwrite: bool = False
    verify: bool = False
    limit_rate: int = 0


@dataclass(frozen=True, slots=True)
class ReadWitness:
    """State which checkpoints of the audit logs the machine keeps; `nonce` is 16 random bytes."""

    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class ResetWitness:
    """Forget them and begin anew: after a controller was restored from an older copy."""


Action = (
    RunProgram
    | CollectInventory
    | TakeSnapshot
    | ScanUpdates
    | PlanUpdates
    | ApplyUpdates
    | SetBackup
    | RunBackup
    | PlanBackup
    | RestoreFiles
    | PlanRestore
    | CompareLive
    | RunDrill
    | CancelOrder
    | ChangeVaultSecret
    | RunScript
    | ListServices
    | ControlService
    | ListProcesses
    | KillProcess
    | ReadLog
    | ControlPower
    | RevokeStanding
    | Rehome
    | GetFile
    | PutFile
    | ReadWitness
    | ResetWitness
)

ACTIONS: Mapping[str, type[Action]] = {
    "run_program": RunProgram,
    "collect_inventory": CollectInventory,
    "take_snapshot": TakeSnapshot,
    "scan_updates": ScanUpdates,
    "plan_updates": PlanUpdates,
    "apply_updates": ApplyUpdates,
    "set_backup": SetBackup,
    "run_backup": RunBackup,
    "plan_backup": PlanBackup,
    "restore_files": RestoreFiles,
    "plan_restore": PlanRestore,
    "compare_live": CompareLive,
    "run_drill": RunDrill,
    "cancel_order": CancelOrder,
    "change_vault_secret": ChangeVaultSecret,
    "run_script": RunScript,
    "list_services": ListServices,
    "control_service": ControlService,
    "list_processes": ListProcesses,
    "kill_process": KillProcess,
    "read_log": ReadLog,
    "control_power": ControlPower,
    "revoke_standing": RevokeStanding,
    "rehome": Rehome,
    "get_file": GetFile,
    "put_file": PutFile,
    "read_witness": ReadWitness,
    "reset_witness": ResetWitness,
}
NAMES: Mapping[type[Action], str] = {kind: name for name, kind in ACTIONS.items()}


def name_of(action: Action) -> str:
    """The action's name in orders, jobs and the audit log."""
    return NAMES[type(action)]
