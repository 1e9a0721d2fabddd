"""Be again what this machine was, when the controller has never heard of what it is now.

A controller in a stranger's hands calls a whole fleet copies, and gives each machine a name
that nobody else knows. The controller that is put right afterwards, or put back from a copy of
before that, knows every machine by its former key. So whoever is called unknown asks for a
certificate with each of those; where one is given, that identity is taken back.

A real copy does the same when the controller has forgotten it, and gains nothing: its token is
old there, and on other hardware it is called a copy once more.
"""

from __future__ import annotations

from datetime import datetime

from agent.config import AgentHome
from agent.host import log
from agent.link.former import former_identities, take_back
from agent.link.identity import Credentials, load_identity
from agent.link.renew import renew
from protocol.errors import SteadError
from protocol.ids import MachineId


def go_back(present: Credentials, home: AgentHome, *, now: datetime) -> MachineId | None:
    """Take the newest former identity back that the controller certifies; None for none."""
    for former in former_identities(home):
        try:
            before = load_identity(home, former.home)
            if before.root != present.root:
                continue
            renew(before, former.home, now=now)
            take_back(home, former.machine, present.identity.machine)
        except (SteadError, OSError) as error:
            log.warning("former_identity_not_taken_back", machine=former.machine, reason=str(error))
            continue
        return former.machine
    return None
