from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key

from protocol.errors import Code, InvalidError
from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.grant import Grant, open_grant, seal_grant
from protocol.vault.keys import TenantKey
from protocol.vault.node import Root, decode_root, encode_root
from protocol.vault.point import (
    Contents,
    Envelope,
    PointSignatureError,
    RestorePoint,
    Skipped,
    decode_envelope,
    decode_point,
    encode_point,
    key_id,
    open_contents,
    point_hash,
    seal_contents,
    sign_point,
    verify_point,
)
from protocol.vault.reader import Piece, Span
from protocol.vault.seal import SealedError, binding, open_sealed, seal_to
from tests.unit.vault_format.points import (
    MACHINE,
    POINT,
    TENANT,
    certificate,
    contents,
    machine_key,
    restore_point,
)

KEY = TenantKey(bytes(range(32)))
OTHER = TenantKey(bytes(32))
ROOT = Root(Reference(ChunkId(b"i" * 32), b"k" * 32, 1000, b"f" * 16), 2, 30, 20, 10**12)
INSIDE = contents(ROOT)


def sealed_point() -> RestorePoint:
    recovery = KEY.secret.recovery_public
    machine = machine_key().public_key()
    return restore_point(
        ROOT,
        seal_contents(INSIDE, recovery, kind="tenant", tenant=TENANT, machine=MACHINE, point=POINT),
        seal_contents(INSIDE, machine, kind="machine", tenant=TENANT, machine=MACHINE, point=POINT),
    )


def signed() -> bytes:
    key = machine_key()
    return sign_point(sealed_point(), key, [certificate(key)])


def test_a_point_comes_back_as_it_was_signed() -> None:
    envelope = decode_envelope(signed())
    point = verify_point(envelope)
    assert open_contents(KEY.recovery_private, point) == INSIDE
    assert open_contents(machine_key(), point) == INSIDE
    assert encode_point(point) == envelope.body
    assert decode_point(envelope.body) == point
    assert len(point_hash(envelope.body)) == 32
    assert decode_root(encode_root(ROOT)) == ROOT


def test_nobody_else_opens_the_contents() -> None:
    point = verify_point(decode_envelope(signed()))
    with pytest.raises(InvalidError, match="not sealed to this key"):
        open_contents(OTHER.recovery_private, point)
    relabelled = msgspec.structs.replace(
        point.sealed[0], key=key_id(OTHER.recovery_private.public_key())
    )
    with pytest.raises(SealedError):
        open_contents(OTHER.recovery_private, msgspec.structs.replace(point, sealed=(relabelled,)))


@pytest.mark.parametrize("field", ["id", "tenant", "machine"])
def test_sealed_contents_cannot_be_moved_to_another_point(field: str) -> None:
    point = sealed_point()
    moved = msgspec.structs.replace(point, **{field: getattr(point, field)[:-1] + "9"})
    with pytest.raises(SealedError):
        open_contents(KEY.recovery_private, moved)


def test_a_point_that_names_another_root_than_it_seals_is_refused() -> None:
    with pytest.raises(InvalidError, match="another root"):
        open_contents(KEY.recovery_private, msgspec.structs.replace(sealed_point(), root=bytes(32)))


def test_every_altered_byte_of_a_body_is_found() -> None:
    envelope = decode_envelope(signed())
    for place in range(0, len(envelope.body), 7):
        body = bytearray(envelope.body)
        body[place] ^= 1
        with pytest.raises(PointSignatureError):
            verify_point(msgspec.structs.replace(envelope, body=bytes(body)))


def test_a_point_signed_by_another_key_than_its_certificate_is_refused() -> None:
    forged = sign_point(sealed_point(), machine_key(8), [certificate(machine_key(7))])
    with pytest.raises(PointSignatureError) as caught:
        verify_point(decode_envelope(forged))
    assert caught.value.code is Code.BAD_SIGNATURE


def test_an_envelope_without_a_usable_certificate_is_refused() -> None:
    for chain in ((), (b"no certificate",)):
        with pytest.raises(PointSignatureError):
            verify_point(Envelope(1, encode_point(sealed_point()), chain, b""))


def test_fields_of_later_releases_do_not_hinder_reading() -> None:
    fields = msgspec.msgpack.decode(encode_point(sealed_point()))
    assert decode_point(msgspec.msgpack.encode(fields | {"later": 1})) == sealed_point_without(
        fields
    )


def sealed_point_without(fields: dict[str, object]) -> RestorePoint:
    return msgspec.convert(fields, RestorePoint)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "rp_x"),
        ("tenant", MACHINE),
        ("scope", "all"),
        ("format", 2),
        ("rules", b"short"),
        # No clock shows these, and in some zones nothing can.
        ("started_at", datetime(1, 1, 1, tzinfo=UTC)),
        ("started_at", datetime(9999, 12, 31, 23, 59, tzinfo=UTC)),
    ],
)
def test_a_point_with_impossible_fields_is_refused(field: str, value: object) -> None:
    fields = msgspec.msgpack.decode(encode_point(sealed_point()))
    with pytest.raises(InvalidError):
        decode_point(msgspec.msgpack.encode(fields | {field: value}))


def test_a_point_has_a_greatest_size() -> None:
    skipped = tuple(Skipped(b"/x" * 500, "gone") for _ in range(4000))
    sealed = seal_contents(
        Contents(ROOT, (b"/",), skipped),
        KEY.secret.recovery_public,
        kind="tenant",
        tenant=TENANT,
        machine=MACHINE,
        point=POINT,
    )
    with pytest.raises(InvalidError, match="fewer skipped"):
        encode_point(msgspec.structs.replace(sealed_point(), sealed=(sealed,)))


def test_the_controller_reads_no_path_in_a_restore_point() -> None:
    body = encode_point(sealed_point())
    for path in (b"/etc", b"shadow", b"/home"):
        assert path not in body


def test_what_is_sealed_opens_only_for_its_key_and_purpose() -> None:
    context = binding("test", "a", "b")
    sealed = seal_to(KEY.secret.recovery_public, b"words", context)
    assert open_sealed(KEY.recovery_private, sealed, context) == b"words"
    for key, altered, other in (
        (OTHER.recovery_private, sealed, context),
        (KEY.recovery_private, sealed, binding("test", "ab", "")),
        (KEY.recovery_private, sealed[:-1] + bytes([sealed[-1] ^ 1]), context),
        (KEY.recovery_private, b"\2" + sealed[1:], context),
        (machine_key(), sealed, context),
        (KEY.recovery_private, b"", context),
    ):
        with pytest.raises(SealedError):
            open_sealed(key, altered, other)


def test_nothing_is_sealed_to_unfit_keys_nor_for_ambiguous_purposes() -> None:
    with pytest.raises(InvalidError):
        seal_to(generate_private_key(SECP384R1()).public_key(), b"", b"")
    with pytest.raises(InvalidError):
        seal_to(b"short", b"", b"")
    with pytest.raises(InvalidError):
        seal_to(bytes(32), b"", b"")
    with pytest.raises(InvalidError):
        binding("root", "a\0b")


def test_a_grant_opens_only_for_its_machine_and_point() -> None:
    piece = Piece(b"plain", (ChunkId(b"c" * 32),))
    grant = Grant((Span((ROOT, piece), b"a", None),), b"s" * 32)
    key = machine_key()
    names = {"tenant": TENANT, "machine": MACHINE, "point": POINT}
    sealed = seal_grant(grant, key.public_key(), **names)
    assert open_grant(key, sealed, **names) == grant
    for name in names:
        with pytest.raises(SealedError):
            open_grant(key, sealed, **(names | {name: "another"}))
