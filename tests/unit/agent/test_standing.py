from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from agent.config import AgentHome
from agent.tasks.standing import (
    KeptSet,
    LastRun,
    due_backup,
    due_drill,
    load_set,
    note_drill,
    note_run,
    set_backup,
    verified_set,
)
from agent.tasks.verify import Believed, check_denied
from protocol.action import (
    Action,
    GetFile,
    PutFile,
    ReadLog,
    RunBackup,
    RunDrill,
    SetBackup,
)
from protocol.codec import decode_order, encode_envelope, encode_order
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, OrderId
from protocol.order import Envelope, Order, OrderRejectedError, sign
from protocol.selection import Commands, CommandStream
from protocol.summary import summary_of
from tests.fakes.link_server import DAY, Authority, Realm, fresh, new_task

NOW = datetime.now(UTC).replace(microsecond=0)


class Desk:
    def __init__(self, path: Path) -> None:
        self.realm = Realm()
        self.home = AgentHome(path)
        machine = MachineIdentity(self.realm.tenant, MachineId(fresh("mc")))
        self.believed = Believed(self.realm.root.certificate, machine)

    def envelope(self, action: Action, by: Authority | None = None, at: datetime = NOW) -> Envelope:
        by = by or self.realm.operator(life=DAY)
        order = Order(
            id=OrderId(fresh("or")),
            tenant=self.believed.identity.tenant,
            machines=(self.believed.identity.machine,),
            action=action,
            issued_at=at,
            not_before=at,
            deliver_by=NOW + DAY,
            timeout=DAY,
        )
        return sign(encode_order(order), key=by.key, certificate=by.certificate)

    def put(self, action: SetBackup, at: datetime = NOW) -> None:
        set_backup(self.home, new_task(), action, self.envelope(action, at=at), now=NOW)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_set_is_due_once_a_period_long_after_its_signers_certificate_ended(desk: Desk) -> None:
    desk.put(SetBackup((b"/etc",), "daily"))
    assert due_backup(desk.home, desk.believed, now=NOW) is None
    later = NOW + timedelta(days=300)
    assert due_backup(desk.home, desk.believed, now=later) == RunBackup((b"/etc",))


def test_an_older_order_does_not_replace_a_newer_ones_set(desk: Desk) -> None:
    desk.put(SetBackup((b"/etc",)))
    with pytest.raises(SteadError) as caught:
        desk.put(SetBackup((b"/home",)), at=NOW - timedelta(seconds=1))
    assert caught.value.code is Code.REPLAYED
    assert verified_set(desk.home, desk.believed).paths == (b"/etc",)
    desk.put(SetBackup((b"/srv",)), at=NOW + timedelta(seconds=1))
    assert verified_set(desk.home, desk.believed).paths == (b"/srv",)


def test_a_set_without_a_schedule_is_never_due(desk: Desk) -> None:
    desk.put(SetBackup((b"/etc",)))
    assert due_backup(desk.home, desk.believed, now=NOW + timedelta(days=300)) is None
    assert verified_set(desk.home, desk.believed).paths == (b"/etc",)


def test_a_set_that_no_operator_signed_is_not_run(desk: Desk) -> None:
    action = SetBackup((b"/root",), "hourly")
    forged = desk.envelope(action, by=Realm().operator())
    kept = KeptSet(action.paths, action.schedule, NOW, encode_envelope(forged))
    desk.home.backup_set.write_bytes(msgspec.msgpack.encode(kept))
    with pytest.raises(SteadError) as caught:
        due_backup(desk.home, desk.believed, now=NOW + DAY)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_a_set_that_the_machine_has_come_to_deny_is_not_run(desk: Desk) -> None:
    desk.put(SetBackup((b"/etc",), "hourly"))
    for name in ("set_backup", "run_backup", "run_bakcup"):
        denying = Believed(desk.believed.root, desk.believed.identity, (name,))
        with pytest.raises(SteadError) as caught:
            due_backup(desk.home, denying, now=NOW + DAY)
        assert caught.value.code is Code.DENIED


@pytest.mark.parametrize(
    "commands",
    [
        Commands(before=("true",)),
        Commands(after=("true",)),
        Commands((CommandStream(b"/streams/x", ("true",)),)),
    ],
)
def test_who_may_run_no_program_may_not_by_way_of_a_backup(desk: Desk, commands: Commands) -> None:
    denying = Believed(desk.believed.root, desk.believed.identity, ("run_program",))
    desk.put(SetBackup((b"/etc",), "hourly"))
    assert due_backup(desk.home, denying, now=NOW + DAY) == RunBackup((b"/etc",))
    action = SetBackup((b"/etc",), "hourly", commands=commands)
    with pytest.raises(OrderRejectedError, match="run_program"):
        check_denied(decode_order(desk.envelope(action).order), denying)
    check_denied(decode_order(desk.envelope(action).order), desk.believed)
    desk.put(action)
    assert due_backup(desk.home, desk.believed, now=NOW + DAY) == RunBackup(
        (b"/etc",), commands=commands
    )
    assert "runs true" in summary_of(action)
    assert "runs true" in summary_of(RunBackup(commands=commands))
    with pytest.raises(SteadError, match="run_program") as caught:
        due_backup(desk.home, denying, now=NOW + DAY)
    assert caught.value.code is Code.DENIED


@pytest.mark.parametrize("action", [SetBackup((b"etc",)), SetBackup((b"/etc",), "often")])
def test_a_set_that_makes_no_sense_leaves_the_one_before(desk: Desk, action: SetBackup) -> None:
    desk.put(SetBackup((b"/etc",), "daily"))
    with pytest.raises(InvalidError):
        desk.put(action)
    kept = load_set(desk.home)
    assert kept is not None
    assert kept.paths == (b"/etc",)


def test_a_drill_is_due_once_a_period_and_sooner_after_one_that_was_not_good(desk: Desk) -> None:
    canary = (b"/etc/canary",)
    desk.put(
        SetBackup((b"/etc",), "daily", seal_to_machine=True, drills="monthly", canaries=canary)
    )
    assert due_drill(desk.home, desk.believed, now=NOW) is None
    later = NOW + timedelta(days=31)
    assert due_drill(desk.home, desk.believed, now=later) == RunDrill(canaries=canary)
    note_drill(desk.home, LastRun(later, "succeeded"))
    assert due_drill(desk.home, desk.believed, now=later + timedelta(hours=1)) is None
    note_drill(desk.home, LastRun(later, "failed", "no room"))
    assert due_drill(desk.home, desk.believed, now=later) is None
    assert due_drill(desk.home, desk.believed, now=later + timedelta(days=1)) is not None
    denied = Believed(desk.believed.root, desk.believed.identity, ("run_drill",))
    assert due_drill(desk.home, denied, now=later + timedelta(days=90)) is None


def test_a_backup_is_sealed_to_the_machine_as_its_set_says(desk: Desk) -> None:
    desk.put(SetBackup((b"/etc",), "daily", seal_to_machine=True))
    later = NOW + timedelta(days=2)
    assert due_backup(desk.home, desk.believed, now=later) == RunBackup(
        (b"/etc",), seal_to_machine=True
    )
    assert due_drill(desk.home, desk.believed, now=later) is None


@pytest.mark.parametrize(
    "wrong",
    [
        SetBackup((b"/etc",), drills="weekly"),
        SetBackup((b"/etc",), seal_to_machine=True, drills="yearly"),
        SetBackup((b"/etc",), canaries=(b"relative",)),
    ],
)
def test_a_set_whose_drills_cannot_be_is_refused(desk: Desk, wrong: SetBackup) -> None:
    with pytest.raises(InvalidError):
        desk.put(wrong)
    assert load_set(desk.home) is None


def test_a_set_ordered_while_the_clock_was_ahead_is_run_once_and_not_at_every_look(
    desk: Desk,
) -> None:
    desk.put(SetBackup((b"/etc",), "daily"))
    before = NOW - timedelta(days=10)  # the clock is set right
    assert due_backup(desk.home, desk.believed, now=before) == RunBackup((b"/etc",))
    note_run(desk.home, LastRun(before, "succeeded"))
    soon = before + timedelta(minutes=1)
    assert due_backup(desk.home, desk.believed, now=soon) is None
    later = before + timedelta(days=1)
    assert due_backup(desk.home, desk.believed, now=later) == RunBackup((b"/etc",))


def test_who_denies_getting_files_is_not_got_round_by_a_log(desk: Desk) -> None:
    denying = Believed(desk.believed.root, desk.believed.identity, ("get_file",))
    for file in ("/etc/shadow", "/var/log/../../etc/shadow", "/var/logs"):
        order = decode_order(desk.envelope(ReadLog(file=file)).order)
        with pytest.raises(OrderRejectedError, match="get_file"):
            check_denied(order, denying)
        check_denied(order, desk.believed)
    for log in (ReadLog(file="/var/log/web/web.log"), ReadLog(unit="web"), ReadLog()):
        check_denied(decode_order(desk.envelope(log).order), denying)


def test_who_denies_programs_is_not_got_round_by_a_file_that_is_run(desk: Desk) -> None:
    denying = Believed(desk.believed.root, desk.believed.identity, ("run_program",))
    order = decode_order(desk.envelope(PutFile(path=b"/etc/cron.d/x")).order)
    with pytest.raises(OrderRejectedError):
        check_denied(order, denying)
    check_denied(order, desk.believed)
    check_denied(decode_order(desk.envelope(GetFile(path=b"/etc/hosts")).order), denying)
