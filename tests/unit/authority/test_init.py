"""An installation is made whole or its pieces are named; nothing is overwritten."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.audit.chain import Verified, verify
from controller.audit.log import INSTALLATION, entries
from controller.authority.authority import load_authority, load_certificate, load_key
from controller.authority.init import Initialised, initialise
from controller.authority.keys import new_key
from controller.config import ControllerHome, OperatorHome, RootHome
from controller.db.database import Database
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role, believe, pin_of
from protocol.tls import private_pem

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def make(home: Path, names: tuple[str, ...] = ("stead.example.com", "10.0.0.1")) -> Initialised:
    return initialise(home, names=names, now=NOW)


def files(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()
    }


def test_all_that_belongs_to_an_installation_is_there(tmp_path: Path) -> None:
    made = make(tmp_path / "home")
    root = load_certificate(made.root.certificate)
    assert load_key(made.root.key).public_key() == root.public_key()
    assert made.pin == pin_of(root)
    authority = load_authority(made.controller, NOW)
    assert authority.root == root == load_certificate(made.operator.root)
    operator = load_certificate(made.operator.certificate)
    identity = believe(operator, root=root, issuing=(), now=NOW)
    assert identity == OperatorIdentity("admin", Role.ADMIN, None)
    assert load_key(made.operator.key).public_key() == operator.public_key()
    assert made.operator.load_settings().address == "stead.example.com:7443"
    settings = made.controller.load_settings()
    assert settings.names == ("stead.example.com", "10.0.0.1")
    db = Database.open(made.controller.database_url(settings))
    found = db.read_now(lambda c: entries(c, INSTALLATION))
    db.close_now()
    assert [entry.event for entry in found] == ["installation_made", "operator_added"]
    assert isinstance(verify(found, INSTALLATION), Verified)


def test_the_root_key_is_in_no_directory_but_its_own(tmp_path: Path) -> None:
    made = make(tmp_path)
    secret = made.root.key.read_bytes()
    holders = [name for name, data in files(tmp_path).items() if secret in data]
    assert holders == ["root/root.key"]


def test_nobody_else_may_read_what_was_made(tmp_path: Path) -> None:
    make(tmp_path / "home")
    for path in (tmp_path / "home").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert not list(tmp_path.rglob(".*"))


def test_a_second_time_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    before = files(tmp_path)
    with pytest.raises(SteadError) as caught:
        make(tmp_path)
    assert caught.value.code is Code.ALREADY_EXISTS
    assert files(tmp_path) == before


PIECES = [
    "root/root.key",
    "root/root.pem",
    "controller/root.pem",
    "controller/issuing.key",
    "controller/issuing.pem",
    "controller/stead.db",
    "operator/operator.key",
    "operator/operator.pem",
    "operator/root.pem",
    "operator/config.toml",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_of_an_installation_is_named_and_left_alone(tmp_path: Path, piece: str) -> None:
    path = tmp_path / piece
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    with pytest.raises(SteadError) as caught:
        make(tmp_path)
    assert caught.value.code is Code.PRECONDITION
    assert str(path) in str(caught.value)
    assert files(tmp_path) == {piece: b"precious"}


def test_an_interrupted_init_can_be_told_from_a_finished_one(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.controller.settings.unlink()
    with pytest.raises(SteadError) as caught:
        make(tmp_path)
    assert caught.value.code is Code.PRECONDITION
    for piece in PIECES:
        assert str(tmp_path / piece) in str(caught.value)


@pytest.mark.parametrize("names", [(), ("bad name",), ("host:7443",), ("",), ("a..b",), ("-a",)])
def test_a_name_that_cannot_be_certified_is_refused_before_anything_is_made(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(SteadError) as caught:
        make(tmp_path, names)
    assert caught.value.code is Code.INVALID
    assert files(tmp_path) == {}


def test_an_authority_whose_files_do_not_belong_together_is_refused(tmp_path: Path) -> None:
    made, other = make(tmp_path / "one"), make(tmp_path / "two")
    good = made.controller.issuing_key.read_bytes()
    made.controller.issuing_key.write_bytes(private_pem(new_key()))
    with pytest.raises(SteadError, match="is not the key of"):
        load_authority(made.controller, NOW)
    made.controller.issuing_key.write_bytes(good)
    made.controller.root.write_bytes(other.controller.root.read_bytes())
    with pytest.raises(SteadError, match="was not signed by"):
        load_authority(made.controller, NOW)


def test_an_authority_that_ended_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(SteadError) as caught:
        load_authority(made.controller, NOW + timedelta(days=731))
    assert caught.value.code is Code.EXPIRED


@pytest.mark.parametrize("content", [b"", b"-----BEGIN nonsense", b"\xff" * 40])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    made = make(tmp_path)
    for path in (made.controller.issuing, made.controller.issuing_key, made.controller.root):
        good = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(SteadError, match=str(path)):
            load_authority(made.controller, NOW)
        path.write_bytes(good)
    load_authority(made.controller, NOW)


def test_the_three_directories_lie_beside_each_other(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert made.root == RootHome(tmp_path / "root")
    assert made.controller == ControllerHome(tmp_path / "controller")
    assert made.operator == OperatorHome(tmp_path / "operator")
