"""A machine as a witness of the audit logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agent.config import AgentHome
from agent.host import clock
from agent.link.identity import load_identity
from agent.witness.keep import load_watched, render_alarm, reset_watched
from agent.witness.watch import Witness
from protocol.checkpoint import Checkpoint, Found, encode_signed, open_checkpoint, sign_checkpoint
from protocol.errors import Code, SteadError
from protocol.identity import key_hash
from protocol.ids import TenantId
from protocol.merkle import prove_consistency
from protocol.witness import SignedStatement, is_proven, open_statement
from tests.altered import flipped
from tests.fakes.link_server import Authority, Realm
from tests.unit.audit.signing import OTHER, checkpoint, entry, node_of

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
        self.tenant = TenantId(self.identity.tenant)
        self.witness = Witness(self.home)

    def restart(self) -> None:
        """Start the agent anew: what it remembered and did not write is gone."""
        self.witness = Witness(self.home)

    def sign(self, made: Checkpoint) -> bytes:
        issuing = self.realm.issuing
        return encode_signed(sign_checkpoint(made, issuing.key, der_of(issuing)))

    def told(self, entries: list[bytes], first: int = 0, log: str | None = None) -> Found:
        made = checkpoint(entries, self.tenant if log is None else log, NOW)
        size = len(entries)
        proof = prove_consistency(first, size, node_of(entries)) if first <= size else ()
        return self.take(self.sign(made), proof)

    def take(self, signed: bytes, proof: tuple[bytes, ...] = ()) -> Found:
        return self.witness.take(self.known.root, self.tenant, signed, proof, NOW)

    def alarms(self) -> list[tuple[str, Found]]:
        """Which alarms the controller is told."""
        said = self.witness.watched(self.tenant, NOW).each_alarm()
        return sorted((log, alarm.found) for log, alarm in said)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing can be written in the file's place meanwhile."""
        in_the_way = self.home.witness.with_name(f".{self.home.witness.name}.new")
        in_the_way.mkdir()
        try:
            yield
        finally:
            in_the_way.rmdir()


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
    [alarm] = found.alarms[watching.tenant]
    assert (alarm.found, alarm.times, alarm.at) == (Found.FORKED, 2, NOW)
    assert alarm.kept == before[watching.tenant]
    assert open_checkpoint(alarm.told, watching.known.root).root == checkpoint(forked).root
    # The log that was kept goes on being followed, and the alarm stays.
    assert watching.told(LOG[:7], 5) is Found.NEWER
    assert load_watched(watching.home).alarms[watching.tenant] == [alarm]
    assert "another history" in render_alarm(watching.tenant, alarm)


def test_an_older_checkpoint_and_one_that_nobody_signed_raise_alarms(watching: Watching) -> None:
    watching.told(LOG[:5])
    assert watching.told(LOG[:4], 5) is Found.SHRUNK
    for nothing in (b"nothing", b"\x93\xc4\x07\x96\x01\xa1\xff\x01\xc4\x00\xc4\x00\xc4\x00"):
        assert watching.take(nothing) is Found.UNSIGNED
    other = Realm().issuing
    forged = checkpoint(LOG[:6], "", NOW)
    assert watching.take(encode_signed(sign_checkpoint(forged, other.key, der_of(other)))) is (
        Found.UNSIGNED
    )
    found = load_watched(watching.home)
    assert found.sizes() == {watching.tenant: 5}
    assert [(log, alarm.found, alarm.times) for log, alarm in found.each_alarm()] == [
        (watching.tenant, Found.SHRUNK, 1),
        (watching.tenant, Found.UNSIGNED, 2),
        ("", Found.UNSIGNED, 1),
    ]


def test_a_checkpoint_of_a_distrusted_authority_is_not_taken_and_alarms_nobody(
    watching: Watching,
) -> None:
    watching.told(LOG[:5])
    stolen = key_hash(watching.realm.issuing.key.public_key())
    later = watching.sign(checkpoint(LOG[:6], watching.tenant, NOW))
    with pytest.raises(SteadError) as caught:
        watching.witness.take(
            watching.known.root, watching.tenant, later, (), NOW, distrusted={stolen}
        )
    assert caught.value.code is Code.DISTRUSTED
    found = load_watched(watching.home)
    assert (found.sizes(), found.alarms) == ({watching.tenant: 5}, {})


def test_a_fork_is_not_hidden_behind_a_lesser_alarm(watching: Watching) -> None:
    watching.told(LOG[:5])
    for _ in range(3):
        watching.take(b"nothing")
    forked = [*LOG[:4], entry(99), *LOG[5:9]]
    watching.told(forked, 5)
    unsigned, fork = load_watched(watching.home).alarms[watching.tenant]
    assert (unsigned.found, unsigned.times) == (Found.UNSIGNED, 3)
    assert fork.found is Found.FORKED
    assert open_checkpoint(fork.told, watching.known.root).root == checkpoint(forked).root


def test_another_tenants_log_is_not_watched(watching: Watching) -> None:
    with pytest.raises(SteadError) as caught:
        watching.told(LOG[:3], log=OTHER)
    assert caught.value.code is Code.WRONG_TENANT
    assert load_watched(watching.home).sizes() == {}


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"kept":{"tn_1":"AAAA"}}', b'{"kept":{"\xff":"AAAA"}}']
)
def test_a_damaged_file_is_put_aside_and_raises_an_alarm_that_stays(
    watching: Watching, content: bytes
) -> None:
    for number in (1, 2):
        watching.home.witness.write_bytes(content)
        lost = [("", Found.LOST), (watching.tenant, Found.LOST)]
        assert watching.alarms() == lost
        assert watching.home.witness.with_name(f"witness.{number}").read_bytes() == content
    # The machine goes on as a witness, and what comes then does not cover the loss.
    assert watching.told(LOG[:3]) is Found.NEWER
    assert watching.told(LOG[:2], 3) is Found.SHRUNK
    watching.restart()
    assert watching.alarms() == sorted([*lost, (watching.tenant, Found.SHRUNK)])


def test_a_damaged_file_loses_no_alarm_that_comes_with_the_next_checkpoint(
    watching: Watching,
) -> None:
    watching.told(LOG[:5])
    watching.home.witness.write_bytes(b"\0" * 100)
    assert watching.take(b"nothing") is Found.UNSIGNED
    assert watching.witness.has_news(watching.tenant, NOW)
    watching.restart()
    assert (watching.tenant, Found.UNSIGNED) in watching.alarms()


def test_an_alarm_that_the_disk_does_not_take_is_told_and_written_later(
    watching: Watching,
) -> None:
    watching.told(LOG[:5])
    with watching.full_disk():
        assert watching.told(LOG[:4], 5) is Found.SHRUNK
        assert watching.alarms() == [(watching.tenant, Found.SHRUNK)]
        assert load_watched(watching.home).alarms == {}
        assert watching.take(b"nothing") is Found.UNSIGNED
    both = [(watching.tenant, Found.SHRUNK), (watching.tenant, Found.UNSIGNED)]
    assert watching.alarms() == both
    watching.restart()
    assert watching.alarms() == both


def test_a_checkpoint_that_the_disk_does_not_take_is_no_fork(watching: Watching) -> None:
    watching.told(LOG[:5])
    with watching.full_disk(), pytest.raises(SteadError):
        watching.told(LOG[:9], 5)
    assert watching.witness.watched(watching.tenant, NOW).sizes() == {watching.tenant: 5}
    assert watching.told(LOG[:9], 5) is Found.NEWER
    assert watching.alarms() == []


def test_a_file_that_cannot_be_read_is_left_alone_and_told(watching: Watching) -> None:
    watching.home.witness.mkdir()
    lost = [("", Found.LOST), (watching.tenant, Found.LOST)]
    assert watching.alarms() == lost
    with pytest.raises(SteadError, match="cannot be read"):
        watching.told(LOG[:3])
    assert not watching.witness.has_news(watching.tenant, NOW)
    watching.home.witness.rmdir()
    assert watching.alarms() == []


def test_another_tenants_machine_begins_with_nothing(watching: Watching) -> None:
    from agent.link.enroll import finish

    watching.told(LOG[:5])
    watching.told(LOG[:7], log="")
    before = watching.home.witness.read_bytes()
    new = Realm(), AgentHome(watching.home.enrolling)
    new[0].furnish(new[1], "127.0.0.1:1")
    finish(watching.home)
    assert not watching.home.witness.exists()
    assert watching.home.witness.with_name("witness.1").read_bytes() == before


def test_a_reset_begins_anew_and_keeps_a_copy(watching: Watching) -> None:
    watching.told(LOG[:5])
    watching.told(LOG[:4], 5)
    assert watching.alarms() == [(watching.tenant, Found.SHRUNK)]
    gone = reset_watched(watching.home)
    assert len(gone.each_alarm()) == 1
    assert load_watched(watching.home).kept == {}
    assert watching.home.witness.with_name("witness.1").exists()
    assert watching.witness.has_news(watching.tenant, NOW)
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
        replace(signed, signature=flipped(signed.signature)),
        replace(signed, chain=signed.chain[:1]),
        replace(signed, chain=()),
        replace(signed, body=b""),
    ):
        with pytest.raises(SteadError):
            open_statement(altered, **ask)  # type: ignore[arg-type]
