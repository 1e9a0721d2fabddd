"""What a controller that somebody else has taken over can do with restore points."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.authority.authority import load_certificate, load_key
from controller.authority.certificates import Issuer, certify_machine
from controller.authority.keys import new_key, new_serial
from controller.vault.keys import point_key
from protocol.ids import PointId, make_id
from protocol.vault.chunk import Sealer
from protocol.vault.entry import Entry, Owner
from protocol.vault.keys import TenantKey, decode_tenant_key
from protocol.vault.point import (
    Contents,
    RestorePoint,
    decode_envelope,
    seal_contents,
    sign_point,
    verify_point,
)
from protocol.vault.tree import TreeBuilder
from tests.faults.backup_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    for number in range(2):
        (made.files / "file").write_bytes(b"version %d" % number)
        assert made.back_up() is not None
    yield made
    made.kill_controller()


@pytest.fixture
def database(world: World) -> Iterator[sqlite3.Connection]:
    """The stopped controller's database; afterwards it is as it was and runs again."""
    path = world.installation.home / "controller" / "stead.db"
    world.kill_controller()
    opened = sqlite3.connect(path)
    rows = opened.execute("SELECT * FROM points").fetchall()
    yield opened
    world.kill_controller()
    opened.execute("DELETE FROM points")
    marks = ",".join("?" * len(rows[0]))
    opened.executemany(f"INSERT INTO points VALUES ({marks})", rows)
    opened.commit()
    opened.close()
    world.start_controller()


def browse(world: World, point: str) -> tuple[int, str]:
    (machine,) = {record.machine_id for record in world.points()}
    ended = world.installation.run(
        "stead", "backup", "browse", machine, point, str(world.files), "--output", "json"
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_an_old_point_is_not_taken_for_the_latest(
    world: World, database: sqlite3.Connection
) -> None:
    world.start_controller()
    newest, oldest = (record.point_id for record in world.points())
    assert browse(world, "latest")[0] == 0
    world.kill_controller()
    database.execute("DELETE FROM points WHERE id = ?", (newest,))
    database.commit()
    world.start_controller()
    code, said = browse(world, "latest")
    assert code != 0
    assert newest in said
    assert browse(world, oldest)[0] == 0


def test_a_point_under_another_name_is_refused(world: World, database: sqlite3.Connection) -> None:
    (old,) = database.execute("SELECT record FROM points ORDER BY received_at LIMIT 1").fetchone()
    database.execute(
        "UPDATE points SET record = ? WHERE received_at = (SELECT max(received_at) FROM points)",
        (old,),
    )
    database.commit()
    world.start_controller()
    code, said = browse(world, "latest")
    assert code != 0
    assert "not to be believed" in said


def test_a_point_that_the_controller_made_itself_is_refused(
    world: World, database: sqlite3.Connection
) -> None:
    """It has the issuing key, a chain that is believed, and everything public; not the secret."""
    home = world.installation.home / "controller"
    issuing = Issuer(load_certificate(home / "issuing.pem"), load_key(home / "issuing.key"))
    (row,) = database.execute("SELECT record FROM points ORDER BY received_at LIMIT 1").fetchone()
    real = verify_point(decode_envelope(row))
    recovery = decode_tenant_key(
        next((home.parent / "operator" / "tenants").glob("*.key")).read_bytes()
    ).secret.recovery_public
    now = datetime.now(UTC)
    key = new_key()
    leaf = certify_machine(issuing, key.public_key(), world.identity, serial=new_serial(), now=now)
    chunks: dict[bytes, bytes] = {}
    own = TenantKey(bytes(range(32))).secret
    builder = TreeBuilder(
        Sealer(own), own.boundary_key, lambda ref, stored: chunks.__setitem__(ref.id, stored)
    )
    builder.add(b"", Entry(b"", 0o40755, Owner(0, 0), 0))
    root = builder.finish()
    identity = PointId(
        make_id("rp", at_ms=int(now.timestamp() * 1000) + 3_600_000, random=bytes(10))
    )
    sealed = seal_contents(
        Contents(root, (b"/",), ()),
        recovery,
        kind="tenant",
        tenant=real.tenant,
        machine=real.machine,
        point=identity,
    )
    fields = {name: getattr(real, name) for name in RestorePoint.__struct_fields__}
    forged = RestorePoint(
        **{**fields, "id": identity, "root": root.reference.id, "sealed": (sealed,)}
    )
    record = sign_point(forged, key, [leaf, issuing.certificate])
    _plant(database, home, forged, record, chunks)
    world.start_controller()
    code, said = browse(world, identity)
    assert code != 0
    assert "damaged" in said
    # Nothing was remembered of it: the real ones are still the latest.
    database.execute("DELETE FROM points WHERE id = ?", (identity,))
    database.commit()
    assert browse(world, "latest")[0] == 0


def _plant(
    database: sqlite3.Connection,
    home: Path,
    forged: RestorePoint,
    record: bytes,
    chunks: dict[bytes, bytes],
) -> None:
    columns = [row[1] for row in database.execute("PRAGMA table_info(points)")]
    template = dict(zip(columns, database.execute("SELECT * FROM points").fetchone(), strict=True))
    (latest,) = database.execute("SELECT max(received_at) FROM points").fetchone()
    template |= {
        "id": forged.id,
        "record": record,
        "root_id": forged.root,
        "received_at": latest + 1 if isinstance(latest, int) else latest[:-1] + "9",
        "object_key": point_key(forged.tenant, forged.machine, forged.id),
    }
    marks = ",".join("?" * len(columns))
    database.execute(f"INSERT INTO points VALUES ({marks})", [template[c] for c in columns])
    (pack, number) = database.execute("SELECT id, number FROM packs WHERE kind='tree'").fetchone()
    path = home / "objects" / forged.tenant / "packs" / pack[:2] / pack
    for identity, stored in chunks.items():
        offset = path.stat().st_size
        with path.open("ab") as file:
            file.write(stored)
        database.execute(
            "INSERT INTO chunks (tenant_id, id, pack_number, offset, length, kind)"
            " VALUES (?, ?, ?, ?, ?, 1)",
            (forged.tenant, identity, number, offset, len(stored)),
        )
    database.commit()
