from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, select

from controller.db.database import Database
from controller.db.errors import DatabaseDamagedError
from controller.db.schema import installation


def filled(path: Path) -> str:
    """The URL of a closed database with a row in it."""
    url = f"sqlite:///{path}"
    db = Database.open(url, create=True)
    db.write_now(lambda c: c.execute(insert(installation).values(key="k", value=b"secret")).close())
    db.close_now()
    return url


def test_a_closed_database_opens_again(tmp_path: Path) -> None:
    url = filled(tmp_path / "stead.db")
    for _ in range(2):
        db = Database.open(url)
        assert db.read_now(lambda c: c.execute(select(installation.c.value)).scalar()) == b"secret"
        db.close_now()


def test_one_flipped_bit_anywhere_in_a_closed_database_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "stead.db"
    url = filled(path)
    sound = path.read_bytes()
    for place in range(0, len(sound), 4099):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DatabaseDamagedError, match=r"stead\.db was changed .* bytes 0 to"):
            Database.open(url)
    path.write_bytes(sound)
    Database.open(url).close_now()


@pytest.mark.parametrize("cut", [1, 4096])
def test_a_database_that_was_cut_short_is_found(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "stead.db"
    url = filled(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DatabaseDamagedError, match="changed since it was closed"):
        Database.open(url)


def test_damaged_sums_are_named(tmp_path: Path) -> None:
    path = tmp_path / "stead.db"
    url = filled(path)
    path.with_name("stead.db.sums").write_bytes(b"\xc1")
    with pytest.raises(DatabaseDamagedError, match=r"stead\.db\.sums"):
        Database.open(url)


def test_an_open_database_has_no_sums(tmp_path: Path) -> None:
    path = tmp_path / "stead.db"
    db = Database.open(filled(path))
    assert not path.with_name("stead.db.sums").exists()
    db.close_now()
