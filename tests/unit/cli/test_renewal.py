from __future__ import annotations

import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from controller.authority.authority import load_certificate
from controller.authority.certificates import (
    OPERATOR_LIFETIME,
    Issuer,
    certify_machine,
    certify_operator,
    make_root,
)
from controller.authority.keys import new_key, new_serial
from controller.cli.commands.operator import write_profile
from controller.cli.main import run
from controller.cli.operator.renewal import ended_error, ends_soon, renew
from controller.config import OperatorHome, RootHome
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, OperatorIdentity, Role, believe
from protocol.ids import MachineId, TenantId
from protocol.tls import chain_pem, private_pem

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TENANT = TenantId("tn_01hzzzzzzzzzzzzzzzzzzzzzzz")
EVE = OperatorIdentity("eve", Role.HELPDESK, frozenset({TENANT}))


@dataclass(frozen=True)
class Made:
    """A root, and the profile of an operator whom it certified."""

    issuer: Issuer
    root: RootHome
    profile: OperatorHome

    def renew(self, name: str = "", now: datetime = NOW) -> x509.Certificate:
        return renew(self.profile, self.root, name, now=now)


def made(directory: Path, *, begun: datetime = NOW - timedelta(days=10)) -> Made:
    key = new_key()
    issuer = Issuer(make_root(key, serial=new_serial(), now=begun), key)
    root = RootHome(directory / "root")
    root.path.mkdir(parents=True)
    root.certificate.write_bytes(chain_pem([issuer.certificate]))
    root.key.write_bytes(private_pem(key))
    own = new_key()
    leaf = certify_operator(issuer, own.public_key(), EVE, serial=new_serial(), now=begun)
    profile = OperatorHome(directory / "operator")
    write_profile(profile, chain_pem([leaf]), private_pem(own), issuer.certificate, "127.0.0.1:9")
    return Made(issuer, root, profile)


@pytest.mark.parametrize("age", [10, 364, 800], ids=["young", "about to end", "ended"])
def test_a_renewed_certificate_has_the_same_key_and_identity_for_another_year(
    tmp_path: Path, age: int
) -> None:
    here = made(tmp_path, begun=NOW - timedelta(days=age))
    before = load_certificate(here.profile.certificate)
    key = here.profile.key.read_bytes()
    given = here.renew()
    after = load_certificate(here.profile.certificate)
    assert after == given
    assert after.public_key() == before.public_key()
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc == NOW + OPERATOR_LIFETIME
    assert believe(after, root=here.issuer.certificate, issuing=(), now=NOW) == EVE
    assert here.profile.key.read_bytes() == key
    assert stat.S_IMODE(here.profile.certificate.stat().st_mode) == 0o600
    assert {p.name for p in here.profile.path.iterdir()} == {
        "config.toml",
        "operator.key",
        "operator.pem",
        "root.pem",
        "tenants",
    }


def refused(here: Made, code: Code, name: str = "") -> str:
    before = here.profile.certificate.read_bytes()
    with pytest.raises(SteadError) as caught:
        here.renew(name)
    assert caught.value.code is code
    assert here.profile.certificate.read_bytes() == before
    return str(caught.value)


def test_another_installation_s_root_renews_nothing(tmp_path: Path) -> None:
    here, other = made(tmp_path / "a"), made(tmp_path / "b")
    mixed = Made(other.issuer, other.root, here.profile)
    assert "another installation" in refused(mixed, Code.WRONG_PIN)


def test_a_root_s_certificate_with_another_key_renews_nothing(tmp_path: Path) -> None:
    here = made(tmp_path)
    here.root.key.write_bytes(private_pem(new_key()))
    assert "root.key" in refused(here, Code.INVALID)


def test_a_certificate_that_the_root_did_not_sign_is_not_renewed(tmp_path: Path) -> None:
    here, other = made(tmp_path / "a"), made(tmp_path / "b")
    here.profile.certificate.write_bytes(other.profile.certificate.read_bytes())
    assert "operator.pem" in refused(here, Code.UNAUTHENTICATED)


def test_a_certificate_of_another_key_is_not_renewed(tmp_path: Path) -> None:
    here = made(tmp_path)
    here.profile.key.write_bytes(private_pem(new_key()))
    assert "operator.key" in refused(here, Code.INVALID)


def test_a_machine_is_no_operator(tmp_path: Path) -> None:
    here = made(tmp_path)
    identity = MachineIdentity(TENANT, MachineId("mc_01hzzzzzzzzzzzzzzzzzzzzzzz"))
    leaf = certify_machine(here.issuer, new_key().public_key(), identity, serial=7, now=NOW)
    here.profile.certificate.write_bytes(chain_pem([leaf]))
    assert "operator" in refused(here, Code.UNAUTHENTICATED)


def test_a_name_that_is_not_the_profile_s_is_refused(tmp_path: Path) -> None:
    here = made(tmp_path)
    assert "--home" in refused(here, Code.INVALID, "ann")
    here.renew("eve")


def test_a_root_that_has_ended_renews_nothing(tmp_path: Path) -> None:
    here = made(tmp_path, begun=NOW - timedelta(days=21 * 365))
    assert "root.pem" in refused(here, Code.EXPIRED)


def test_a_root_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    here = made(tmp_path)
    here.root.key.unlink()
    assert "--root" in refused(here, Code.PRECONDITION)


def test_the_last_thirty_days_are_told_and_the_end_is_an_error(tmp_path: Path) -> None:
    here = made(tmp_path, begun=NOW)
    leaf = load_certificate(here.profile.certificate)
    end = leaf.not_valid_after_utc
    assert ends_soon(leaf, end - timedelta(days=31)) == ""
    assert "stead operator renew" in ends_soon(leaf, end - timedelta(days=29))
    assert ended_error(leaf, end - timedelta(seconds=1)) is None
    error = ended_error(leaf, end)
    assert error is not None
    assert "stead operator renew" in str(error)


def test_an_ended_certificate_is_told_before_anything_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, begun=datetime.now(UTC) - timedelta(days=400))
    assert run(["--home", str(tmp_path), "machine", "ls"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: your certificate ended")
    assert "stead operator renew" in err
    assert run(["--home", str(tmp_path), "operator", "renew", "-o", "jsonl"]) == 0
    assert '"name":"eve"' in capsys.readouterr().out


def test_a_certificate_that_ends_soon_is_told_and_the_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, begun=datetime.now(UTC) - timedelta(days=340))
    assert run(["--home", str(tmp_path), "machine", "ls"]) == 6
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: your certificate ends")
    assert last.startswith("error: cannot connect")
