"""Report inventory: hashes first, then the bodies that the controller asks for.

The last known body of every section is kept in the cache, so that a report always
names all sections although only some were collected. Called in a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import msgspec
from blake3 import blake3

from agent.config import AgentHome
from agent.host.files import make_private_directory, write_atomically
from agent.host.lock import in_turn
from agent.inventory.delta import HASH_BYTES, changed, root_of
from agent.inventory.section import Envelope
from agent.link.refusal import error_of_call
from protocol.codec import to_ms
from protocol.errors import UNREADABLE, Code, SteadError
from protocol.v1 import inventory_pb2
from protocol.v1.inventory_pb2_grpc import InventoryServiceStub

ANSWER_S = 120.0
BATCH_BYTES = 12 * 1024 * 1024
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Reported:
    """What the controller now has: the hash over all sections, and which are new to it."""

    root: bytes
    changed: tuple[str, ...]
    sent_bytes: int


def last_root(home: AgentHome) -> bytes:
    """The root that was last reported; empty when none was, or when it cannot be read."""
    try:
        root = (home.cache / "inventory.root").read_bytes()
    except OSError:
        return b""
    return root if len(root) == HASH_BYTES else b""


def known_sections(home: AgentHome) -> dict[str, bytes]:
    """The last known body of every section, by name; a damaged one is not known."""
    directory = home.cache / "sections"
    bodies = ((path.stem, _body_of(path)) for path in sorted(directory.glob(f"*{_SUFFIX}")))
    return {name: body for name, body in bodies if body is not None}


def _body_of(path: Path) -> bytes | None:
    try:
        body = path.read_bytes()
        return body if msgspec.json.decode(body, type=Envelope).section == path.stem else None
    except (OSError, *UNREADABLE):
        return None


def report(
    channel: grpc.Channel, home: AgentHome, bodies: Mapping[str, bytes], *, at: datetime
) -> Reported:
    """Take over these bodies and report the whole inventory.

    Raises what the controller refuses with, UNAVAILABLE when it cannot be reached, and
    INTERNAL when it computes another root.
    """
    directory = home.cache / "sections"
    make_private_directory(directory)
    # Two orders may report at once, and what is reported is always all that is kept.
    with in_turn(home.cache / "inventory.lock"):
        before = known_sections(home)
        everything = {**before, **bodies}
        for name, body in bodies.items():
            if before.get(name) != body:
                write_atomically(directory / f"{name}{_SUFFIX}", body)
        manifest = {name: blake3(body).digest() for name, body in everything.items()}
        sent = _tell(channel, manifest, everything, at)
        root = root_of(manifest)
        write_atomically(home.cache / "inventory.root", root)
    old = {name: blake3(body).digest() for name, body in before.items()}
    return Reported(root, changed(old, manifest).to_send, sent)


def _tell(
    channel: grpc.Channel,
    manifest: Mapping[str, bytes],
    bodies: Mapping[str, bytes],
    at: datetime,
) -> int:
    stub = InventoryServiceStub(channel)
    by_hash = {digest: bodies[name] for name, digest in manifest.items()}
    hashes = [
        inventory_pb2.SectionHash(name=name, hash=digest)
        for name, digest in sorted(manifest.items())
    ]
    wanted: list[bytes] = []
    sent = 0
    # Each round brings at least one section over, so there are not more rounds than sections.
    for _ in range(len(manifest) + 2):
        batch = list(_batch(by_hash[digest] for digest in wanted if digest in by_hash))
        request = inventory_pb2.ReportRequest(
            collected_at_ms=to_ms(at), sections=hashes, bodies=batch
        )
        try:
            answer = stub.Report(request, timeout=ANSWER_S)
        except grpc.RpcError as error:
            raise error_of_call(error) from error
        sent += sum(map(len, batch))
        wanted = list(answer.missing)
        if not wanted:
            if answer.root != root_of(manifest):
                break
            return sent
    raise SteadError(
        "the controller and this machine do not agree on what the inventory is; look at the "
        "controller's log",
        code=Code.INTERNAL,
    )


def _batch(bodies: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for body in bodies:
        if size and size + len(body) > BATCH_BYTES:
            return
        size += len(body)
        yield body
