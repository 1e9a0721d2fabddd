from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.host.zone import local_zone
from agent.tasks.schedule import drill_period_of, timetable_of, timetable_of_drills
from protocol.errors import InvalidError
from protocol.ids import MachineId, make_id

MACHINE = MachineId(make_id("mc", at_ms=1, random=bytes(10)))
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_an_expression_counts_in_the_machines_zone() -> None:
    times = timetable_of("30 2 * * *", MACHINE, BERLIN)
    assert times is not None
    assert times.next(NOON) == datetime(2026, 5, 2, 0, 30, tzinfo=UTC)
    assert times.is_due(NOON, NOON - timedelta(days=1))
    assert not times.is_due(NOON, NOON - timedelta(hours=1))


def test_a_spread_moves_a_machine_by_less_than_it_says() -> None:
    plain = timetable_of("30 2 * * *", MACHINE, BERLIN)
    moved = timetable_of("30 2 * * *", MACHINE, BERLIN, spread_s=3600)
    assert plain is not None
    assert moved is not None
    assert timedelta() < moved.next(NOON) - plain.next(NOON) < timedelta(hours=1)


def test_no_schedule_is_no_timetable() -> None:
    assert timetable_of("", MACHINE, BERLIN) is None
    with pytest.raises(InvalidError, match="hourly, daily, weekly"):
        timetable_of("fortnightly", MACHINE, BERLIN)


def test_drills_have_words_of_their_own() -> None:
    assert drill_period_of("") is None
    period = drill_period_of("monthly")
    assert period is not None
    assert timetable_of_drills(period, MACHINE, BERLIN).is_due(NOON, NOON - 2 * period)
    with pytest.raises(InvalidError, match="monthly"):
        drill_period_of("hourly")


def test_the_zone_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summer = datetime(2026, 7, 1, 12, tzinfo=UTC)
    monkeypatch.setenv("TZ", "America/New_York")
    assert summer.astimezone(local_zone()).hour == 8
    monkeypatch.delenv("TZ")
    zone = tmp_path / "localtime"
    assert summer.astimezone(local_zone(zone)).utcoffset() is not None  # there is no such file
    for folder in ("/usr/share/zoneinfo", "/usr/share/lib/zoneinfo"):
        if (file := Path(folder) / "Europe" / "Berlin").exists():
            zone.symlink_to(file)
            assert summer.astimezone(local_zone(zone)).hour == 14
    zone.unlink(missing_ok=True)
    zone.write_bytes(b"no zone")
    assert summer.astimezone(local_zone(zone)).utcoffset() is not None
