"""Hold the calls of a machine beside its link against its ratchet: a copy makes none for long.

The link moves the ratchet on; all other calls show the token that is on the machine's disk.
Whoever has a copied disk and makes no link, so as not to be found out, shows the token of the
day of the copy. In memory: the database holds the truth, and `controller.authority.holders`
tells what changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.authority.ratchet import NEVER_OURS, generation_of
from protocol.errors import Code, SteadError
from protocol.holder import LONGEST_TOKEN
from protocol.identity import MachineIdentity
from protocol.ids import MachineId

BEHIND = 1
"""So many tokens a call may be behind: it was made just before the next one was on the disk."""


class Holding:
    """The newest token of each machine. For one event loop."""

    def __init__(self) -> None:
        self._key = b""
        self._newest: dict[str, int] = {}
        self._told: set[tuple[str, int]] = set()
        self.on_old: Callable[[MachineIdentity, int, int], None] = lambda *_: None
        """Called with a machine, what was shown and what is newest, once for each."""

    def load(self, key: bytes, newest: Mapping[str, int]) -> None:
        """Take over what the database says."""
        self._key = key
        self._newest.update(newest)

    def moved_on(self, machine: MachineId, generation: int) -> None:
        """A token of this generation was acknowledged or shown at Hello."""
        self._newest[machine] = max(generation, self._newest.get(machine, 0))

    def check(self, machine: MachineIdentity, token: bytes) -> None:
        """Raise CLONE for a token that is too old, UPGRADE_REQUIRED for none.

        A machine without a token yet, whose agent may be of a release without one, may call.
        """
        newest = self._newest.get(machine.machine, 0)
        if newest == 0:
            return
        if not token:
            raise SteadError(
                "this machine has proved before that it is no copy, and this call does not: "
                "upgrade the agent",
                code=Code.UPGRADE_REQUIRED,
            )
        whole = len(token) <= LONGEST_TOKEN
        shown = generation_of(self._key, machine.machine, token) if whole else NEVER_OURS
        if shown >= newest - BEHIND:
            return
        if (machine.machine, shown) not in self._told:
            self._told.add((machine.machine, shown))
            self.on_old(machine, shown, newest)
        raise SteadError(
            "this call shows an older state of the machine than its link did: another computer "
            "is this machine, or it was put back and has not connected since",
            code=Code.CLONE,
        )
