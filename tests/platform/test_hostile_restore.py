"""A hostile machine of the tenant makes restore points by hand; others restore them.

Everything but the hostile machine's backup is the installed programs: `stead`, the
controller, and the agent that writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.actions.backup import load_vault_secret
from agent.backup.send.record import signed_record
from agent.backup.send.vault import Batch
from agent.backup.send.wire import GrpcVault
from agent.backup.skipped import SkippedList
from agent.backup.who import Who
from agent.config import AgentHome
from agent.host import clock
from agent.link.identity import load_identity, open_channel
from demo.installation import Installation
from protocol.vault.chunk import Kind, Sealer
from protocol.vault.entry import Entry, Owner
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import Root
from protocol.vault.point import Totals
from tests.fakes.typed import TypedInstallation

Rows = list[tuple[bytes, Entry]]
OWNER = Owner(0, 0, "root", "root")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = TypedInstallation(tmp_path_factory.mktemp("hostile"))
    with made.enrolled():
        yield made


@pytest.fixture(scope="module")
def name(installation: Installation) -> str:
    listed = installation.must("stead", "machine", "ls", "--output", "json")
    return str(json.loads(listed)[0]["name"])


def file(name: bytes, *, group: bytes | None = None) -> Entry:
    return Entry(name, 0o100644, OWNER, 1, 7, (), b"planted", link_group=group)


def folder(name: bytes) -> Entry:
    return Entry(name, 0o040755, OWNER, 1)


def link(name: bytes, target: bytes) -> Entry:
    return Entry(name, 0o120777, OWNER, 1, target=target)


def commit(installation: Installation, rows: Rows) -> None:
    """A restore point of one leaf with these rows, whatever they are, signed as it must be."""
    home = AgentHome(installation.home / "agent")
    known = load_identity(home)
    secret = load_vault_secret(home)
    writer = LeafWriter()
    for parent, entry in rows:
        writer.add(parent, entry)
    plain, children = writer.finish()
    reference, stored = Sealer(secret).seal(Kind.TREE, plain, children)
    point = clock.new_id("rp")
    files = sum(entry.mode >> 12 == 8 for _, entry in rows)
    root = Root(reference, 0, len(rows), files, 7 * files)
    who = Who(
        known.identity.tenant, known.identity.machine, secret, known.key, known.chain, "0.1.0"
    )
    with open_channel(home) as channel:
        vault = GrpcVault(channel)
        session = vault.begin(point)
        assert list(vault.put(session.id, [Batch([stored], flush=True)]))[-1] == 1
        record = signed_record(
            who, session, point=point, rules=bytes(32), paths=[b"evil"], detector="walk",
            started_at=datetime.now(UTC), root=root, skipped=SkippedList(),
            totals=Totals(entries=len(rows), files=files),
        )  # fmt: skip
        vault.commit(session, record)


def hostile(outside: bytes) -> dict[str, Rows]:
    top: Rows = [(b"", folder(b"evil"))]
    return {
        "a name that leads upwards": [*top, (b"evil", file(b".."))],
        "a name with a slash": [*top, (b"evil", file(b"../../planted"))],
        "an absolute name": [*top, (b"evil", file(outside + b"/planted"))],
        "a name with a NUL": [*top, (b"evil", file(b"a\0b"))],
        "a folder that leads upwards": [*top, (b"evil/../..", file(b"planted"))],
        "the same name twice": [*top, (b"evil", file(b"a")), (b"evil", file(b"a"))],
        "a file below a link": [
            *top, (b"evil", link(b"way", outside)), (b"evil/way", file(b"planted")),
        ],
        "a file below a file": [*top, (b"evil", file(b"way")), (b"evil/way", file(b"planted"))],
        "a group of links that lies outside": [
            *top, (b"evil", file(b"a", group=outside + b"/kept")),
            (b"evil", file(b"b", group=outside + b"/kept")),
        ],
    }  # fmt: skip


READABLE = {"a file below a link", "a file below a file", "a group of links that lies outside"}


@pytest.mark.parametrize("case", hostile(b"/outside"))
def test_a_hostile_tree_reaches_nothing_outside(
    installation: Installation, name: str, tmp_path: Path, case: str
) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    before = [(path, path.stat()) for path in (outside, outside / "kept")]
    commit(installation, hostile(bytes(outside))[case])
    ended = installation.run(
        "stead", "backup", "restore", name, "latest", "/evil", "--to", str(target), "--overwrite"
    )
    assert "Traceback" not in ended.stderr
    if case not in READABLE:
        # Refused where the order would be signed, so no machine ever sees it.
        assert ended.returncode not in (0, 3), ended
        assert not target.exists()
    elif "links" in case:
        assert ended.returncode == 0, ended
        assert (target / "evil" / "a").samefile(target / "evil" / "b")
    else:
        assert ended.returncode == 3, ended
        assert "planted" in ended.stderr
    for path, stat in before:
        after = path.stat()
        assert (after.st_ino, after.st_nlink, after.st_mode) == (
            stat.st_ino, stat.st_nlink, stat.st_mode,
        )  # fmt: skip
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["outside"],
        ["outside", "target"],
    )
