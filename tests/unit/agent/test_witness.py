"""A machine as a witness of the audit logs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agent.config import AgentHome
from agent.host import clock
from agent.link.identity import load_identity
from agent.witness.keep import load_watched, render_alarm, reset_watched, take_checkpoint
from protocol.checkpoint import Checkpoint, Found, encode_signed, open_checkpoint, sign_checkpoint
from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.merkle import fold_full, leaf_hash, prove_consistency
from protocol.witness import SignedStatement, is_proven, open_statement
from tests.fakes.link_server import Authority, Realm
from tests.unit.audit.signing import OTHER, checkpoint, entry

NOW = clock.now()
LOG = [entry(number) for number in range(20)]


def der_of(authority: Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.DER)


class Watching:
    """A furnished machine and the authority of its installation."""

    def __init__(self, path: Path) -> None:
        self.realm = Realm()
        self.home = AgentHome(path / "agent")
        self.identity = self.realm.furnish(self.home, "127.0.0.1:1")
        self.known = load_identity(self.home)
        self.tenant = self.identity.tenant

    def sign(self, made: Checkpoint) -> bytes:
        issuing = self.realm.issuing
        return encode_signed(sign_checkpoint(made, issuing.key, der_of(issuing)))

    def told(self, entries: list[bytes], first: int = 0, log: str | None = None) -> Found:
        def node(level: int, number: int) -> bytes:
            part = entries[number << level : (number + 1) << level]
            return fold_full([leaf_hash(one) for one in part])

        made = checkpoint(entries, self.tenant if log is None else log, NOW)
        proof = prove_consistency(first, len(entries), node) if first <= len(entries) else ()
        return self.take(self.sign(made), proof)

    def take(self, signed: bytes, proof: tuple[bytes, ...] = ()) -> Found:
        root = self.known.root
        return take_checkpoint(self.home, root, TenantId(self.tenant), signed, proof, NOW)


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    return Watching(tmp_path)


def test_a_log_that_grows_is_followed_through_restarts(watching: Watching) -> None:
    assert load_watched(watching.home).sizes() == {}
    assert watching.told(LOG[:3]) is Found.NEWER
    assert watching.told(LOG[:3], 3) is Found.SAME
    assert watching.told(LOG[:11], 3) is Found.NEWER
    assert watching.told(LOG[:2], log="") is Found.NEWER
    assert load_watched(watching.home).sizes() == {watching.tenant: 11, "": 2}
    assert load_watched(watching.home).alarms == {}
    assert watching.home.witness.stat().st_mode & 0o077 == 0


def test_a_fork_raises_an_alarm_that_stays_with_its_evidence(watching: Watching) -> None:
    watching.told(LOG[:5])
    before = load_watched(watching.home).kept
    forked = [*LOG[:4], entry(99), *LOG[5:9]]
    assert watching.told(forked, 5) is Found.FORKED
    assert watching.told(forked[:5], 5) is Found.FORKED
    found = load_watched(watching.home)
    assert found.kept == before
    alarm = found.alarms[watching.tenant]
    assert (alarm.found, alarm.times, alarm.at) == (Found.FORKED, 2, NOW)
    assert alarm.kept == before[watching.tenant]
    assert open_checkpoint(alarm.told, watching.known.root).root == checkpoint(forked).root
    # The log that was kept goes on being followed, and the alarm stays.
    assert watching.told(LOG[:7], 5) is Found.NEWER
    assert load_watched(watching.home).alarms[watching.tenant] == alarm
    assert "another history" in render_alarm(watching.tenant, alarm)


def test_an_older_checkpoint_and_one_that_nobody_signed_raise_alarms(watching: Watching) -> None:
    watching.told(LOG[:5])
    assert watching.told(LOG[:4], 5) is Found.SHRUNK
    assert watching.take(b"nothing") is Found.UNSIGNED
    other = Realm().issuing
    forged = checkpoint(LOG[:6], "", NOW)
    assert watching.take(encode_signed(sign_checkpoint(forged, other.key, der_of(other)))) is (
        Found.UNSIGNED
    )
    found = load_watched(watching.home)
    assert found.sizes() == {watching.tenant: 5}
    assert {log: a.found for log, a in found.alarms.items()} == {
        watching.tenant: Found.SHRUNK,
        "": Found.UNSIGNED,
    }
    assert found.alarms[watching.tenant].times == 2


def test_another_tenants_log_is_not_watched(watching: Watching) -> None:
    with pytest.raises(SteadError) as caught:
        watching.told(LOG[:3], log=OTHER)
    assert caught.value.code is Code.WRONG_TENANT
    assert load_watched(watching.home).sizes() == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"kept":{"tn_1":"AAAA"}}'])
def test_a_damaged_file_is_named_and_left_alone(watching: Watching, content: bytes) -> None:
    watching.home.witness.write_bytes(content)
    with pytest.raises(SteadError, match="witness"):
        watching.told(LOG[:3])
    assert watching.home.witness.read_bytes() == content


def test_a_reset_begins_anew_and_keeps_a_copy(watching: Watching) -> None:
    watching.told(LOG[:5])
    watching.told(LOG[:4], 5)
    gone = reset_watched(watching.home)
    assert len(gone.alarms) == 1
    assert load_watched(watching.home).kept == {}
    assert watching.home.witness.with_suffix(".old").exists()
    assert watching.told(LOG[:4]) is Found.NEWER


def stated(watching: Watching, nonce: bytes) -> SignedStatement:
    import msgspec

    from agent.actions.action import Workplace
    from agent.actions.witness import execute
    from protocol.action import ReadWitness
    from protocol.ids import MachineId, TaskId

    place = Workplace(
        home=watching.home,
        tenant=watching.tenant,
        machine=MachineId(watching.identity.machine),
        task=TaskId("ts_1"),
        channel=lambda: pytest.fail("nothing is asked"),
        progress=lambda _: None,
    )
    return msgspec.json.decode(execute(ReadWitness(nonce), place).result, type=SignedStatement)


def test_a_statement_is_believed_of_this_machine_for_this_question_alone(
    watching: Watching,
) -> None:
    from agent.link.identity import load_sealing

    watching.told(LOG[:5])
    watching.told(LOG[:4], 5)
    nonce = b"n" * 16
    signed = stated(watching, nonce)
    ask = {
        "root": watching.known.root,
        "machine": watching.identity.machine,
        "tenant": watching.tenant,
        "nonce": nonce,
        "now": clock.now(),
    }
    opened = open_statement(signed, **ask)  # type: ignore[arg-type]
    assert opened.kept == tuple(load_watched(watching.home).kept.values())
    assert [alarm.found for alarm in opened.alarms] == [Found.SHRUNK]
    _, secret = load_sealing(watching.home)
    assert is_proven(signed, secret.convergence)
    assert not is_proven(signed, bytes(32))
    for bad in (
        {"machine": "mc_" + "0" * 26},
        {"tenant": OTHER},
        {"nonce": b"m" * 16},
        {"root": Realm().root.certificate},
        {"now": clock.now() + timedelta(days=4000)},
    ):
        with pytest.raises(SteadError):
            open_statement(signed, **{**ask, **bad})  # type: ignore[arg-type]
    for altered in (
        replace(signed, body=stated(watching, b"x" * 16).body),
        replace(signed, signature=signed.signature[:-1] + b"\0"),
        replace(signed, chain=signed.chain[:1]),
        replace(signed, chain=()),
        replace(signed, body=b""),
    ):
        with pytest.raises(SteadError):
            open_statement(altered, **ask)  # type: ignore[arg-type]
