"""Why there is no link: the certificate and the clock here are looked at first."""

from __future__ import annotations

from agent.host import clock
from agent.link.identity import Credentials
from agent.link.renew import is_expired
from protocol.errors import Code, SteadError
from protocol.tls import NotAcceptedError, explain_failure

EXPLAINED_WITHIN_S = 5.0


def explained(error: SteadError, credentials: Credentials) -> SteadError:
    """An outage with its reason; NotAcceptedError where the right controller answers."""
    now = clock.now()
    if is_expired(credentials.leaf, now):
        return SteadError("this machine's certificate has just ended", code=Code.UNAVAILABLE)
    address = credentials.settings.link_address
    found = explain_failure(
        address,
        credentials.root,
        now=now,
        proxy=credentials.settings.proxy_for(address),
        timeout=EXPLAINED_WITHIN_S,
    )
    # When all is well by now, the first word was the better one.
    return NotAcceptedError(str(error)) if isinstance(found, NotAcceptedError) else found
