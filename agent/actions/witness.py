"""State which checkpoints of the audit logs this machine keeps, or begin anew."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from agent.actions.action import ActionResult, Workplace
from agent.host import clock
from agent.link.identity import load_identity, load_sealing
from agent.witness.keep import (
    WitnessDamagedError,
    load_watched,
    nothing_known,
    render_alarm,
    reset_watched,
)
from protocol.action import ReadWitness, ResetWitness
from protocol.errors import InvalidError
from protocol.outcome import OutcomeState
from protocol.witness import NONCE_BYTES, Statement, Watched, sign_statement


def execute(action: ReadWitness | ResetWitness, place: Workplace) -> ActionResult:
    """Sign what is kept, or forget it."""
    if isinstance(action, ResetWitness):
        gone = reset_watched(place.home)
        alarms = len(gone.each_alarm())
        said = f"{len(gone.kept)} checkpoints and {alarms} alarms were put aside"
        result = msgspec.json.encode({"checkpoints": len(gone.kept), "alarms": alarms})
        return ActionResult(OutcomeState.SUCCEEDED, result=result, message=said)
    if len(action.nonce) != NONCE_BYTES:
        raise InvalidError(f"a nonce has {NONCE_BYTES} bytes")
    watched, known = _watched(place), load_identity(place.home)
    _, secret = load_sealing(place.home)
    statement = Statement(
        tenant=place.tenant,
        machine=place.machine,
        nonce=action.nonce,
        at=clock.now(),
        kept=tuple(watched.kept.values()),
        alarms=tuple(alarm for _, alarm in watched.each_alarm()),
    )
    chain = tuple(one.public_bytes(Encoding.DER) for one in known.chain)
    signed = sign_statement(statement, key=known.key, chain=chain, secret=secret.convergence)
    said = "; ".join(render_alarm(log, alarm) for log, alarm in watched.each_alarm())
    return ActionResult(OutcomeState.SUCCEEDED, result=msgspec.json.encode(signed), message=said)


def _watched(place: Workplace) -> Watched:
    """What is kept. A damaged file is stated, too: the agent's own process puts it aside."""
    try:
        return load_watched(place.home)
    except WitnessDamagedError:
        return nothing_known(place.tenant, clock.now())
