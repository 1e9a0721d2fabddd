"""Turn a token into this machine's identity.

A new identity is put together in a directory of its own, the key first, so that a
second attempt after a cut shows the same key and is answered for the same machine.
`agent.toml` comes last there: with it the set is whole, and from then on moving it
into place is only finished, never begun again. So a cut at any moment leaves the
machine as it was, or enrolled.
"""

from __future__ import annotations

import shutil
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.config import AgentHome, Settings, render_settings
from agent.host.files import make_private_directory, sync_directory, write_atomically
from agent.host.hostname import hostname
from agent.link.asking import ANSWER_S, ask, believed_chain, check_named, signing_request
from agent.link.identity import distrusted_by
from agent.witness.keep import put_aside
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, identity_of
from protocol.ids import TenantId
from protocol.proxy import Proxy
from protocol.tls import chain_pem, find_root, private_pem
from protocol.token import Token, decode_token, open_bundle
from protocol.v1 import enrollment_pb2
from protocol.vault.keys import decode_vault_secret

_PARTS = (
    *("key", "chain", "root", "sealing_key", "vault_secret", "journal"),
    *("vault_order", "ratchet", "backup_set", "backup_runs", "drill_runs", "standing"),
    "settings",
)
"""What an identity is made of, in the order in which it is moved into place. A new one has no
more than the first line and settings; one that is taken back (`agent.link.former`) has more."""


def enroll(
    text: str,
    home: AgentHome,
    *,
    version: str,
    now: datetime,
    journal: bytes,
    force: bool = False,
    proxy: str | None = None,
) -> None:
    """Enroll this machine with a token; `journal` is the content of an empty one.

    `proxy` takes the place of the setting; None leaves that as it is.

    Raises TOKEN_INVALID, TOKEN_USED, TOKEN_EXPIRED, WRONG_PIN, CLOCK_SKEW, UNAVAILABLE, and
    ALREADY_EXISTS for a machine that is enrolled when `force` does not make it a new one.
    """
    finish(home)
    if is_enrolled(home) and not force:
        raise SteadError(
            f"this machine is enrolled already, in {home.path}; use --force to make it a new "
            "machine with a new key",
            code=Code.ALREADY_EXISTS,
        )
    token = decode_token(text)
    # What the machine's administrator has set stays, whoever it is enrolled with.
    before = home.load_settings() if home.settings.exists() else Settings("", "")
    if proxy is not None:
        before = msgspec.structs.replace(before, proxy=proxy)
    way = before.proxy_for(token.address)
    make_private_directory(home.path)
    make_private_directory(home.enrolling)
    sync_directory(home.path)
    new = AgentHome(home.enrolling)
    key = new_key(new)
    root = find_root(token.address, token.pin, proxy=way)
    distrusted = distrusted_by(home, root)
    answer = _ask(token, key, root, version, now, way, distrusted)
    check_named(answer.machine_id, key)
    chain = believed_chain(
        answer.certificate_chain,
        key,
        root,
        now,
        expected=(answer.tenant_id, answer.machine_id),
        distrusted=distrusted,
    )
    tenant = TenantId(answer.tenant_id)
    secret = open_bundle(token.opening, token.id, tenant, answer.sealed_bundle)
    decode_vault_secret(secret)
    write_atomically(new.chain, chain_pem(chain))
    write_atomically(new.root, chain_pem([root]))
    write_atomically(new.sealing_key, X25519PrivateKey.generate().private_bytes_raw())
    write_atomically(new.vault_secret, secret)
    write_atomically(new.journal, journal)
    settings = msgspec.structs.replace(
        before, link_address=answer.link_address, enrollment_address=token.address
    )
    write_atomically(new.settings, render_settings(settings))
    finish(home)


def finish(home: AgentHome) -> None:
    """Move a new identity into place when it is whole; otherwise do nothing."""
    new = AgentHome(home.enrolling)
    if not new.settings.exists():
        return
    if new.key.exists():
        # What the machine was before ends here, with what it was told to do.
        _forget_rulings(home, new)
        for path in (
            home.backup_set,
            home.backup_runs,
            home.drill_runs,
            home.vault_order,
            home.status,
            home.ratchet,
        ):
            path.unlink(missing_ok=True)
        for directory in (home.cache, home.output, home.standing):
            shutil.rmtree(directory, ignore_errors=True)
    for part in _PARTS:
        source, target = getattr(new, part), getattr(home, part)
        if source.exists():
            source.replace(target)
            sync_directory(home.path)
    shutil.rmtree(home.enrolling, ignore_errors=True)


def _forget_rulings(home: AgentHome, new: AgentHome) -> None:
    """Remove what another root, or the root for another tenant, has signed.

    It would count as damaged, and every order be refused. What is this root's, and this
    tenant's, stays: else a controller that has a machine take a new key (`agent.link.rekey`)
    could bring an older policy back.
    """
    same_root = home.root.exists() and home.root.read_bytes() == new.root.read_bytes()
    if not same_root:
        home.revocations.unlink(missing_ok=True)
    if not same_root or _tenant_of(home) != _tenant_of(new):
        home.policy.unlink(missing_ok=True)
        # The logs of another installation or tenant say nothing about these.
        put_aside(home)


def _tenant_of(home: AgentHome) -> TenantId | None:
    try:
        identity = identity_of(x509.load_pem_x509_certificates(home.chain.read_bytes())[0])
    except (OSError, ValueError, SteadError):
        return None
    return identity.tenant if isinstance(identity, MachineIdentity) else None


def new_key(new: AgentHome) -> ec.EllipticCurvePrivateKey:
    """The key of an attempt before this one, or a new one."""
    if new.key.exists():
        kept = load_pem_private_key(new.key.read_bytes(), password=None)
        assert isinstance(kept, ec.EllipticCurvePrivateKey)
        return kept
    key = ec.generate_private_key(ec.SECP256R1())
    write_atomically(new.key, private_pem(key))
    return key


def _ask(
    token: Token,
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    version: str,
    now: datetime,
    way: Proxy | None,
    distrusted: frozenset[bytes],
) -> enrollment_pb2.EnrollResponse:
    message = enrollment_pb2.EnrollRequest(
        token_id=token.id,
        token_secret=token.secret,
        signing_request=signing_request(key),
        hostname=hostname(),
        agent_version=version,
    )
    return ask(
        token.address,
        root,
        lambda stub: stub.Enroll(message, timeout=ANSWER_S),
        distrusted=distrusted,
        proxy=way,
        now=now,
    )


def is_enrolled(home: AgentHome) -> bool:
    """True when there is an identity, be it one that only has to be moved into place."""
    return (home.key.exists() and home.settings.exists()) or AgentHome(
        home.enrolling
    ).settings.exists()
