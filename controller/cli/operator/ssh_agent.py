"""An operator's key that an ssh-agent holds: found, and asked to sign, over its socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from controller.authority.ssh_wire import (
    FIDO_KIND,
    KIND,
    HeldKey,
    ask_for_keys,
    ask_to_sign,
    blob_of,
    parse_keys,
    parse_length,
    parse_signature,
)
from protocol.errors import Code, InvalidError, SteadError

ANSWERS_WITHIN_S = 120.0
"""An agent may ask a person first, or a card that has a button."""


def held_keys() -> Sequence[HeldKey]:
    """The keys that the agent at SSH_AUTH_SOCK holds; PRECONDITION when there is none."""
    return parse_keys(_ask(ask_for_keys()))


def choose_key(named: str) -> HeldKey:
    """The P-256 key that is meant by a fingerprint or a comment; the only one for nothing.

    Raises PRECONDITION when the agent has no such key, INVALID when it has several.
    """
    keys = held_keys()
    good = [key for key in keys if key.kind == KIND]
    found = [key for key in good if named in {"", key.fingerprint, key.comment}]
    if len(found) > 1:
        shown = ", ".join(f"{key.fingerprint} ({key.comment})" for key in found[:10])
        raise InvalidError(f"the ssh-agent holds several such keys: name one of {shown}")
    if found:
        return found[0]
    fido = any(key.kind == FIDO_KIND for key in keys)
    why = "; keys of FIDO devices sign in a way that machines do not know" if fido else ""
    raise SteadError(
        f"the ssh-agent holds no {KIND.decode()} key{f' {named}' if named else ''}{why}; "
        "`ssh-keygen -t ecdsa -b 256` makes one, `ssh-add` adds it",
        code=Code.PRECONDITION,
    )


def sign_by_agent(public: ec.EllipticCurvePublicKey, data: bytes) -> bytes:
    """The agent's signature with this key, in DER, checked.

    PRECONDITION when the agent does not hold the key, or will not sign.
    """
    blob = blob_of(public)
    if all(key.blob != blob for key in held_keys()):
        raise SteadError(
            "the ssh-agent does not hold the key of this profile, "
            f"{HeldKey(blob, '').fingerprint}; add it with `ssh-add`",
            code=Code.PRECONDITION,
        )
    try:
        signature = parse_signature(_ask(ask_to_sign(blob, data)))
        public.verify(signature, data, ec.ECDSA(SHA256()))
    except (InvalidError, InvalidSignature) as error:
        raise SteadError(
            f"the ssh-agent did not sign: {error or 'its signature is wrong'}",
            code=Code.PRECONDITION,
        ) from None
    return signature


def _ask(request: bytes) -> bytes:
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise SteadError(
            "the key of this profile is in an ssh-agent, and SSH_AUTH_SOCK names none; start one "
            "and add the key with `ssh-add`",
            code=Code.PRECONDITION,
        )
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(ANSWERS_WITHIN_S)
            agent.connect(path)
            agent.sendall(request)
            return _exactly(agent, parse_length(_exactly(agent, 4)))
    except OSError as error:
        raise SteadError(
            f"the ssh-agent at {path} does not answer: {error.strerror or error}",
            code=Code.PRECONDITION,
        ) from error


def _exactly(agent: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = agent.recv(count - len(data))
        if not piece:
            raise InvalidError("the ssh-agent hung up")
        data += piece
    return data
