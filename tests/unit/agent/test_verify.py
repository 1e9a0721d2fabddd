"""Which time a machine judges an order by."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.tasks.verify import Believed, verify
from controller.authority.certificates import certify_operator
from controller.authority.keys import new_serial
from protocol.codec import encode_envelope
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, OperatorIdentity, Role
from tests.unit.protocol.signed import KEY, MACHINE, NOW, ORDER, ROOT, TENANT, signed

BELIEVED = Believed(ROOT.certificate, MachineIdentity(TENANT, MACHINE))
HOUR = timedelta(hours=1)


def test_a_clock_that_was_set_back_revives_no_certificate() -> None:
    """The order could still be delivered in time, but whoever signed it has no say any more."""
    ann = certify_operator(
        ROOT,
        KEY.public_key(),
        OperatorIdentity("ann", Role.TECHNICIAN, None),
        serial=new_serial(),
        now=NOW,
        lifetime=HOUR,
    )
    order = replace(ORDER, deliver_by=NOW + 48 * HOUR)
    data = encode_envelope(signed(order, ann))

    def judged(*, latest_seen_after: timedelta) -> str:
        found = verify(
            data,
            BELIEVED,
            now=NOW,
            latest_seen=NOW + latest_seen_after,
            executed_as=lambda _: None,
        )
        return found.signer

    assert judged(latest_seen_after=timedelta()) == "ann"
    with pytest.raises(SteadError) as refused:
        judged(latest_seen_after=2 * HOUR)
    assert refused.value.code is Code.EXPIRED
    assert "certificate" in str(refused.value)
