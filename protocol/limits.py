"""How much of a machine an ordered program and all that it starts may take.

The field names are those of `protocol/v1/order.proto`. What a machine cannot enforce it
says in the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a program with all that it starts; 0 is no limit.

    `cpu_percent` is a part of one processor, so that 200 are two of them. It is a part and
    not a sum of seconds, because what an operator wants is that the machine's own work goes
    on beside it; how long it may last is the order's time-out.
    `nice` is how far it steps back for others, from 0 to 19.
    """

    memory_bytes: int = 0
    cpu_percent: int = 0
    nice: int = 0

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.memory_bytes or self.cpu_percent or self.nice)


NO_LIMITS = Limits()
