"""What a machine's own administrator rules out, as the machine tells it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_DENIED = 200
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Ceiling:
    """`deny` are names of actions; `policy_version` is that of the tenant's policy, 0 for none."""

    deny: tuple[str, ...] = ()
    read_only: bool = False
    policy_version: int = 0


def bounded(ceiling: Ceiling) -> Ceiling:
    """What is kept of a machine's word: no more than a machine in order would say."""
    names = tuple(name[:LONGEST_NAME] for name in ceiling.deny[:MOST_DENIED])
    return Ceiling(names, ceiling.read_only, ceiling.policy_version)
