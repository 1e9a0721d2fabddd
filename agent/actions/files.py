"""Get a file from this machine, or put one there, as a signed order says."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.actions.restore import sealing_key_of
from agent.backup.send.pace import Bucket, checked_limit, lower
from agent.files.parcels import GrpcParcels
from agent.files.receive import write_file
from agent.files.send import opened, send_file
from agent.files.way import check_path, spot_at
from agent.host import clock
from protocol.action import GetFile, PutFile
from protocol.errors import InvalidError, SteadError
from protocol.ids import ParcelId, check_id
from protocol.outcome import OutcomeState
from protocol.parcel import open_key

_PROGRESS_S = 0.3
_HASH_BYTES = 32


def execute(action: GetFile | PutFile, place: Workplace) -> ActionResult:
    """Carry out either; the result says size and hash.

    Raises `SealedError` when the key was sealed to another, INVALID for a path that cannot be
    used, DENIED for what is the agent's own or reached by a link that others can set, and what
    `write_file` and `send_file` raise.
    """
    parcel = ParcelId(check_id("pc", action.parcel_id))
    check_path(action.path)
    sealed = action.sealed_keys.get(place.machine)
    if sealed is None:
        raise InvalidError("the order brings no key for this machine; send it again")
    key = open_key(
        sealing_key_of(place.home),
        sealed,
        tenant=place.tenant,
        machine=place.machine,
        parcel=parcel,
    )
    if isinstance(action, GetFile):
        return _get(action, parcel, key, place)
    return _put(action, parcel, key, place)


def _get(action: GetFile, parcel: ParcelId, key: bytes, place: Workplace) -> ActionResult:
    limit = lower(action.limit_rate, place.home.load_settings().limit_upload)
    telling = _telling(place)
    with (
        spot_at(action.path, place.home.path, follow=True) as spot,
        opened(spot, action.max_bytes) as fd,
        place.channel() as channel,
    ):
        sent = send_file(
            spot,
            fd,
            key,
            parcel,
            place.machine,
            GrpcParcels(channel, _seed()),
            max_bytes=action.max_bytes,
            wait=_pace(limit),
            told=lambda done, size: telling("send", done, size),
        )
    trailer = sent.trailer
    said = f"{trailer.size} bytes"
    if sent.changed:
        said += "; the file was written to while it was read"
    return _result(trailer.size, trailer.content_hash, said, changed=sent.changed)


def _put(action: PutFile, parcel: ParcelId, key: bytes, place: Workplace) -> ActionResult:
    if len(action.content_hash) != _HASH_BYTES:
        raise InvalidError("the order does not say what the content is; sign it again")
    limit = lower(action.limit_rate, place.home.load_settings().limit_download)
    telling = _telling(place)
    with (
        spot_at(action.path, place.home.path, make=action.make_directories) as spot,
        place.channel() as channel,
    ):
        parcels = GrpcParcels(channel, _seed())
        written = write_file(
            spot,
            action,
            key,
            parcels,
            place.task,
            wait=_pace(limit),
            told=lambda done: telling("receive", done, action.size),
        )
        said = f"{action.size} bytes to {spot.shown}"
        if not written:
            said = f"{spot.shown} has this content already"
        # The file is in its place; the parcel ends by itself where this fails.
        with suppress(SteadError):
            parcels.took(parcel)
    return _result(action.size, action.content_hash, said)


def _result(size: int, content_hash: bytes, said: str, *, changed: bool = False) -> ActionResult:
    body = {"bytes": size, "blake3": content_hash.hex(), "changed": changed}
    return ActionResult(OutcomeState.SUCCEEDED, msgspec.json.encode(body), message=said)


def _seed() -> random.Random:
    return random.Random(os.urandom(16))  # noqa: S311 - spreads retries


def _pace(limit: int) -> Callable[[int], None]:
    """Wait until so many bytes may travel."""
    if not limit:
        return lambda _size: None
    bucket = Bucket(checked_limit(limit))
    door = threading.Lock()

    def wait(size: int) -> None:
        with door:
            left = bucket.take(size, clock.monotonic())
        threading.Event().wait(left)

    return wait


def _telling(place: Workplace) -> Callable[[str, int, int], None]:
    told_at = 0.0

    def tell(phase: str, done: int, size: int) -> None:
        nonlocal told_at
        now = clock.monotonic()
        if now >= told_at:
            told_at = now + _PROGRESS_S
            place.progress({"phase": phase, "bytes": done, "size": size})

    return tell
