"""The tables of the controller: the one place from where the others take them.

Every row that belongs to a tenant names it. Ids are text (`protocol.ids`), times are
`Moment`, hashes and records are bytes, JSON is text. A change of a table needs a migration
in `controller.db.migrations`; a test compares the two. A table's references are resolved by
name, so one alone means nothing: import tables from here, not from `controller.db.tables`.
"""

from __future__ import annotations

from controller.db.tables.audit import audit, audit_alarms, audit_checkpoints, audit_nodes
from controller.db.tables.installation import (
    installation,
    key_shares,
    operators,
    tenant_keys,
    tenants,
)
from controller.db.tables.jobs import (
    jobs,
    policies,
    rollouts,
    standing_orders,
    standing_runs,
    task_output,
    tasks,
)
from controller.db.tables.machines import (
    certificates,
    enrollments,
    inventories,
    machine_tags,
    machines,
    ratchets,
    sections,
    tokens,
)
from controller.db.tables.naming import metadata
from controller.db.tables.points import (
    forgotten_points,
    freezes,
    point_holds,
    point_tags,
    points,
    retention_rules,
)
from controller.db.tables.proof import damages, drills, lost_chunks, scrubs, unreadable
from controller.db.tables.vault import (
    chunks,
    doomed_packs,
    generations,
    packs,
    tombstones,
    vault_sessions,
)

SCHEMA_VERSION = "0012"
"""The newest migration that this code knows; versions are four digits and only grow."""

__all__ = [
    "SCHEMA_VERSION",
    "audit",
    "audit_alarms",
    "audit_checkpoints",
    "audit_nodes",
    "certificates",
    "chunks",
    "damages",
    "doomed_packs",
    "drills",
    "enrollments",
    "forgotten_points",
    "freezes",
    "generations",
    "installation",
    "inventories",
    "jobs",
    "key_shares",
    "lost_chunks",
    "machine_tags",
    "machines",
    "metadata",
    "operators",
    "packs",
    "point_holds",
    "point_tags",
    "points",
    "policies",
    "ratchets",
    "retention_rules",
    "rollouts",
    "scrubs",
    "sections",
    "standing_orders",
    "standing_runs",
    "task_output",
    "tasks",
    "tenant_keys",
    "tenants",
    "tokens",
    "tombstones",
    "unreadable",
    "vault_sessions",
]
