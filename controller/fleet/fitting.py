"""Which machines have a fact, by their newest inventories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection

from controller.fleet.facts import Fact, holds, section_of
from controller.fleet.summary import bodies_of, newest_manifests
from protocol.identity import OperatorIdentity

MAX_VERDICTS = 500_000


@dataclass(slots=True)
class Verdicts:
    """What sections say to facts, by the hash of their bodies: true for ever.

    Bounded: when it is full it begins anew.
    """

    _known: dict[tuple[Fact, str], bool | None] = field(default_factory=dict)

    def put(self, fact: Fact, digest: str, verdict: bool | None) -> None:
        """Remember a verdict."""
        if len(self._known) >= MAX_VERDICTS:
            self._known.clear()
        self._known[fact, digest] = verdict

    def has(self, fact: Fact, digest: str) -> bool:
        """True when a body has been looked at."""
        return (fact, digest) in self._known

    def get(self, fact: Fact, digest: str) -> bool | None:
        """The verdict; None when the body does not say, or was never looked at."""
        return self._known.get((fact, digest))


def fitting(
    connection: Connection,
    operator: OperatorIdentity,
    tenant: str,
    facts: Sequence[Fact],
    verdicts: Verdicts,
) -> list[Mapping[str, bool]]:
    """For each fact: by machine id, whether it is so. Who has not said is not named.

    A section that many machines share, or that was looked at before, is looked at once.
    """
    rows = newest_manifests(connection, operator, tenant)
    of_machine = [
        (row.machine_id, row.tenant_id, msgspec.json.decode(row.manifest, type=dict[str, str]))
        for row in rows
    ]
    asked: dict[str, list[Fact]] = {}
    for fact in facts:
        asked.setdefault(section_of(fact), []).append(fact)
    answers: dict[Fact, dict[str, bool]] = {}
    for section, its_facts in asked.items():
        new: dict[str, set[bytes]] = {}
        for _, tenant_id, manifest in of_machine:
            digest = manifest.get(section)
            if digest and not all(verdicts.has(fact, digest) for fact in its_facts):
                new.setdefault(tenant_id, set()).add(bytes.fromhex(digest))
        for (_, digest), body in bodies_of(connection, new):
            for fact in its_facts:
                verdicts.put(fact, digest, holds(fact, body))
        for fact in its_facts:
            answers[fact] = {
                machine: verdict
                for machine, _, manifest in of_machine
                if (verdict := verdicts.get(fact, manifest.get(section, ""))) is not None
            }
    return [answers[fact] for fact in facts]
