"""Make the golden vectors of the vault's format.

    python -m tests.unit.vault_format.golden

writes `tests/data/vault/`. What is random (HPKE, ECDSA) is made once: files that exist
are never overwritten, since every release has to read what an older one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from agent.backup.far_time import extensions_of, near
from agent.metadata.macos import acl
from agent.metadata.macos import flags as mac_flags
from agent.metadata.posix_flags import APPEND_ONLY, IMMUTABLE, NO_ATIME, extension_of
from protocol.vault.chunk import ChunkId, Kind, Reference, Sealer, encode_reference
from protocol.vault.cut import Cutter
from protocol.vault.entry import Entry, Extent, Owner, Stream
from protocol.vault.epochs import TenantKeys, encode_tenant_keys, link
from protocol.vault.grant import Grant, encode_grant, seal_grant
from protocol.vault.keys import (
    TenantKey,
    encode_tenant_key,
    encode_vault_secret,
    machine_scope,
    render_paper_key,
)
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import Root, encode_extents, encode_root
from protocol.vault.pack import PackBuilder
from protocol.vault.point import encode_point, point_hash, seal_contents, sign_point
from protocol.vault.reader import Span
from protocol.vault.sizes import BIG, SMALL
from protocol.vault.tree import TreeBuilder
from tests.unit.vault_format.points import (
    MACHINE,
    POINT,
    TENANT,
    certificate,
    contents,
    machine_key,
    restore_point,
)

FOLDER = Path(__file__).parents[2] / "data" / "vault"
KEY = TenantKey(bytes(range(32)))
SECRET = KEY.secret
GEAR_SEED = 0x0123456789ABCDEF
Json = dict[str, object]


def stream(name: str, length: int) -> bytes:
    """Content that anybody can make again: BLAKE3's extended output."""
    return blake3(name.encode()).digest(length)


def hexed(data: Reference | bytes) -> str:
    return encode_reference(data).hex() if isinstance(data, Reference) else data.hex()


def keys() -> Json:
    scoped = machine_scope(SECRET, MACHINE)
    return {
        "seed": hexed(KEY.seed),
        "convergence": hexed(SECRET.convergence),
        "recovery_private": hexed(KEY.recovery_private.private_bytes_raw()),
        "recovery_public": hexed(SECRET.recovery_public),
        "gear_seed": SECRET.gear_seed,
        "boundary_key": hexed(SECRET.boundary_key),
        "fingerprint_key": hexed(SECRET.fingerprint_key),
        "tenant_key": hexed(encode_tenant_key(KEY)),
        "vault_secret": hexed(encode_vault_secret(SECRET)),
        "paper": render_paper_key(KEY),
        "scoped_machine": MACHINE,
        "scoped_convergence": hexed(scoped.convergence),
    }


CHUNKS: list[tuple[Kind, bytes, list[bytes]]] = [
    (Kind.DATA, b"", []),
    (Kind.DATA, b"hello", []),
    (Kind.DATA, stream("incompressible", 300), []),
    (Kind.DATA, b"compressible " * 40, []),
    (Kind.TREE, b"node", [bytes([1]) * 32, bytes([2]) * 32]),
]


def chunks() -> Json:
    made = []
    for kind, plain, children in CHUNKS:
        reference, stored = Sealer(SECRET).seal(kind, plain, children)
        made.append(
            {
                "kind": int(kind),
                "plain": hexed(plain),
                "children": [hexed(child) for child in children],
                "reference": hexed(reference),
                "stored": hexed(stored),
            }
        )
    return {"chunks": made}


def cuts() -> Json:
    content = stream("cuts", 8 << 20) + bytes(5 << 20) + stream("more cuts", 100_001)
    return {
        "content": "8 MiB of BLAKE3('cuts'), 5 MiB of zeros, 100001 bytes of BLAKE3('more cuts')",
        "gear_seed": GEAR_SEED,
        "big": Cutter(GEAR_SEED, *BIG).cut(content, final=True),
        "small": Cutter(GEAR_SEED, *SMALL).cut(content, final=True),
    }


def _reference(name: str, length: int) -> Reference:
    digest = stream(name, 80)
    return Reference(ChunkId(digest[:32]), digest[32:64], length, digest[64:])


def every_kind() -> list[tuple[bytes, Entry]]:
    """One entry of every kind and with everything that an entry can carry, in key order."""
    root, someone = Owner(0, 0, "root", "root"), Owner(1000, 1001, "zoë", "")
    one, two = _reference("one", 1 << 18), _reference("two", 1000)
    at = 1_700_000_000_123_456_789
    sparse = (Extent(one, 5, 1000), Extent(None, 0, 1 << 40), Extent(two, 0, 1000))
    attributes = ((b"security.capability", b"\1\0"), (b"user.note", b"\xff"))
    return [
        (b"", Entry(b"", 0o40755, root, at)),
        (b"", Entry(b"a", 0o40700, someone, at)),
        (b"", Entry(b"\xff\n", 0o100644, someone, -at, 5, (Extent(one, 0, 5),))),
        (b"a", Entry(b"block", 0o60660, root, at, rdev=0x801)),
        (b"a", Entry(b"char", 0o20666, root, at, rdev=0x103)),
        (b"a", Entry(b"empty", 0o100644, root, at)),
        (b"a", Entry(b"fifo", 0o10644, root, at)),
        (b"a", Entry(b"inline", 0o104755, root, at, 3, inline=b"abc")),
        (b"a", Entry(b"link", 0o120777, root, at, target=b"../\xfe")),
        (
            b"a",
            Entry(
                b"rare",
                0o100600,
                someone,
                at,
                2000 + (1 << 40),
                sparse,
                xattrs=attributes,
                link_group=b"a/rare",
                changed_while_read=True,
                born_ns=at - 1,
                streams=(Stream(b"Zone.Identifier", 26, (Extent(two, 10, 26),)),),
                extensions=(("windows.attributes", b" "), ("windows.security", b"\1")),
            ),
        ),
        (b"a", Entry(b"socket", 0o140755, root, at)),
        (b"a/b", Entry(b"deep", 0o40755, root, at)),
    ]


def many() -> list[tuple[bytes, Entry]]:
    """Enough files for several leaves and an inner node."""
    owner = Owner(7, 7, "svc", "svc")
    return [
        (
            b"d%02d" % (number // 100),
            Entry(
                b"f%04d" % number,
                0o100644,
                owner,
                number,
                10,
                (Extent(_reference(f"many {number // 500}", 1 << 16), number % 500 * 10, 10),),
            ),
        )
        for number in range(3000)
    ]


def build(found: list[tuple[bytes, Entry]]) -> tuple[Root, dict[ChunkId, bytes]]:
    held: dict[ChunkId, bytes] = {}

    def put(reference: Reference, stored: bytes) -> None:
        held[reference.id] = stored

    builder = TreeBuilder(Sealer(SECRET), SECRET.boundary_key, put)
    for parent, entry in found:
        builder.add(parent, entry)
    return builder.finish(), held


def tree() -> Json:
    writer = LeafWriter()
    for parent, entry in every_kind():
        writer.add(parent, entry)
    plain, children = writer.finish()
    listed, list_children = encode_extents(
        0, [Extent(_reference("one", 1 << 18), 0, 9), Extent(None, 0, 7)]
    )
    made: Json = {
        "leaf_plain": hexed(plain),
        "leaf_children": [hexed(child) for child in children],
        "extents_plain": hexed(listed),
        "extents_children": [hexed(child) for child in list_children],
    }
    for name, found in (("every_kind", every_kind()), ("many", many())):
        root, held = build(found)
        made[name] = {
            "root": hexed(encode_root(root)),
            "nodes": [hexed(stored) for stored in held.values()],
        }
    return made


def extensions() -> Json:
    """Entries with what POSIX systems know beside the usual: flags, and times far away."""
    owner, far = Owner(0, 0, "root", "root"), 15_032_385_535 * 1_000_000_000
    writer = LeafWriter()
    for name, flags, mtime_ns in (
        (b"append-only", APPEND_ONLY, 1),
        (b"far", 0, far),
        (b"immutable-and-far", IMMUTABLE | NO_ATIME, far),
    ):
        more = extension_of(flags) + extensions_of(mtime_ns)
        writer.add(b"", Entry(name, 0o100644, owner, near(mtime_ns), extensions=more))
    plain, _ = writer.finish()
    return {"leaf_plain": hexed(plain)}


def with_streams() -> list[Entry]:
    """A file and a folder with named streams: an empty one, a hole, a list of extents."""
    owner, at = Owner(0, 0, "root", "root"), 1_700_000_000_123_456_789
    small, large = _reference("small files", 1 << 18), _reference("large", 1 << 20)
    listed = _reference("list of extents", 40_000)
    zone = Stream(b"Zone.Identifier", 26, (Extent(small, 700, 26),))
    holed = Stream(b"holed", (1 << 20) + 4096, (Extent(large, 0, 1 << 20), Extent(None, 0, 4096)))
    huge = Stream("größe".encode(), 1 << 29, (Extent(listed, 0, 1 << 29),), 1)
    return [
        Entry(b"file", 0o100644, owner, at, 5, (Extent(small, 695, 5),), streams=(zone, holed)),
        Entry(b"folder", 0o40755, owner, at, streams=(Stream(b"empty", 0), huge)),
    ]


def streams() -> Json:
    writer = LeafWriter()
    for entry in with_streams():
        writer.add(b"", entry)
    plain, children = writer.finish()
    return {"leaf_plain": hexed(plain), "leaf_children": [hexed(child) for child in children]}


def macos() -> Json:
    """Entries as a Mac makes them: an access control list, flags, and a time of creation."""
    owner, at = Owner(501, 20, "zoë", "staff"), 1_700_000_000_123_456_789
    everyone = bytes.fromhex("abcdefabcdefabcdefabcdef0000000c")
    refused = acl.pack(acl.Acl((acl.Ace(everyone, 2, 1 << 4),)))
    quarantine = (b"com.apple.quarantine", b"0000;59d84776;MySoftware.app;")
    writer = LeafWriter()
    for entry in (
        Entry(b"both", 0o40700, owner, at, extensions=((acl.NAME, refused), *_hidden())),
        Entry(b"early", 0o100644, owner, at, born_ns=-1),
        Entry(b"hidden", 0o100644, owner, at, born_ns=at - 1, extensions=_hidden()),
        Entry(b"listed", 0o100644, owner, at, extensions=((acl.NAME, refused),)),
        Entry(b"loaded", 0o100644, owner, at, xattrs=(quarantine,)),
    ):
        writer.add(b"", entry)
    plain, _ = writer.finish()
    return {"leaf_plain": hexed(plain)}


def _hidden() -> tuple[tuple[str, bytes], ...]:
    return mac_flags.extension_of(mac_flags.HIDDEN | mac_flags.IMMUTABLE)


def pack() -> Json:
    builder = PackBuilder(Kind.DATA)
    for kind, plain, _ in CHUNKS[1:3]:
        reference, stored = Sealer(SECRET).seal(kind, plain)
        builder.add(reference.id, stored)
    name, parts = builder.finish()
    return {"name": name, "pack": hexed(b"".join(parts))}


def point() -> Json:
    root, _ = build(every_kind())
    recovery, key = SECRET.recovery_public, machine_key()
    names = {"tenant": TENANT, "machine": MACHINE}
    sealed = [
        seal_contents(contents(root), recovery, kind="tenant", point=POINT, **names),
        seal_contents(contents(root), key.public_key(), kind="machine", point=POINT, **names),
    ]
    made = restore_point(root, *sealed)
    body = encode_point(made)
    grant = Grant((Span((root,), b"", None),))
    return {
        "machine_key_number": 7,
        "body": hexed(body),
        "hash": hexed(point_hash(body)),
        "envelope": hexed(sign_point(made, key, [certificate(key)])),
        "grant": hexed(encode_grant(grant)),
        "sealed_grant": hexed(seal_grant(grant, key.public_key(), point=POINT, **names)),
    }


# What comes out the same every time, and what holds something random.
def links() -> Json:
    newer = TenantKey(bytes(range(32, 64)))
    return {
        "older": hexed(encode_tenant_key(KEY)),
        "newer": hexed(encode_tenant_key(newer)),
        "link": hexed(link(newer, KEY)),
        "key_file": hexed(encode_tenant_keys(TenantKeys((newer, KEY)))),
    }


FIXED: dict[str, Callable[[], Json]] = {
    "keys": keys,
    "chunks": chunks,
    "cuts": cuts,
    "tree": tree,
    "pack": pack,
    "extensions": extensions,
    "macos": macos,
    "streams": streams,
    "links": links,
}
RECORDED: dict[str, Callable[[], Json]] = {"point": point}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in (FIXED | RECORDED).items():
        path = FOLDER / f"v1-{name}.json"
        if not path.exists():
            path.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
