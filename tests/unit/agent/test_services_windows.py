"""Windows' services: what the service control manager tells, and how a change is waited for."""

from __future__ import annotations

import struct

import pytest

from agent.actions.services import control
from agent.services.manager import ServiceError, Status, check_order
from agent.services.windows import WindowsServices, parse_status
from protocol.errors import Code, InvalidError, SteadError
from protocol.outcome import OutcomeState
from tests.fakes.service_managers import FakeScm


def manager_of(scm: FakeScm) -> WindowsServices:
    return WindowsServices(scm, scm.described, lambda pid: pid * 10, scm.wait)


def test_a_service_is_shown() -> None:
    scm = FakeScm("MSSQL$SHOP")
    manager = manager_of(scm)
    assert manager.show(["MSSQL$SHOP"]) == [Status("MSSQL$SHOP", "The Web", "stopped", "manual")]
    manager.act("start", "MSSQL$SHOP")
    [found] = manager.show(["MSSQL$SHOP"])
    assert (found.state, found.pid, found.memory_bytes) == ("running", 812, 8120)
    # What shares a process with others has no memory of its own.
    scm.shares = True
    assert manager.show(["MSSQL$SHOP"])[0].memory_bytes is None


@pytest.mark.parametrize(
    ("exit_code", "specific", "state", "detail"),
    [
        (0, 0, "stopped", ""),
        (1077, 0, "stopped", ""),
        (1067, 0, "failed", "error 1067"),
        (1066, 42, "failed", "error 42"),
    ],
)
def test_a_service_that_ended_by_an_error_has_failed(
    exit_code: int, specific: int, state: str, detail: str
) -> None:
    scm = FakeScm()
    scm.exit_code, scm.specific = exit_code, specific
    [found] = manager_of(scm).show(["web"])
    assert (found.state, found.detail) == (state, detail)


def test_a_change_is_waited_for_as_long_as_it_gets_on() -> None:
    scm = FakeScm(steps=1000)
    manager_of(scm).act("start", "web")
    assert scm.state == 4
    assert scm.waited == 250.0


def test_a_service_that_gets_no_further_is_not_waited_for_for_ever() -> None:
    scm = FakeScm()
    scm.hangs = True
    with pytest.raises(ServiceError, match="web is starting after start and gets no further"):
        manager_of(scm).act("start", "web")
    assert scm.waited == 30.0


def test_a_service_that_dies_on_its_way_up_is_a_failure() -> None:
    class Dies(FakeScm):
        def wait(self, seconds: float) -> None:
            self.state, self.exit_code = 1, 1067

    ended = control(manager_of(Dies()), "start", "web")
    assert ended.state is OutcomeState.FAILED
    assert "after start web is failed (error 1067)" in ended.message


@pytest.mark.parametrize(
    ("number", "words"),
    [(5, "access is denied"), (1051, "other services"), (1234, "what Windows says of 1234")],
)
def test_what_windows_refuses_is_told_with_its_number(number: int, words: str) -> None:
    scm = FakeScm()
    scm.state, scm.refuses = 4, number
    with pytest.raises(ServiceError, match=rf"cannot stop web: {words}.*\(error {number}\)"):
        manager_of(scm).act("stop", "web")


def test_a_disabled_service_is_not_started_and_that_is_told() -> None:
    scm = FakeScm()
    manager = manager_of(scm)
    manager.act("disable", "web")
    with pytest.raises(ServiceError, match="it is disabled"):
        manager.act("start", "web")


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\nb", "a\0", "x" * 257])
def test_what_cannot_be_a_service_is_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        manager_of(FakeScm()).checked_name(name)


def test_names_that_windows_allows_are_taken() -> None:
    manager = manager_of(FakeScm())
    for name in ("MSSQL$SHOP", "Dienst für Größe", "-x", "a.socket", "Wcmsvc"):
        assert check_order("restart", name, manager.checked_name) == name


@pytest.mark.parametrize("name", ["stead-agent", "Stead-Agent", "STEAD-AGENT"])
def test_the_agent_does_not_end_itself_however_it_is_written(name: str) -> None:
    with pytest.raises(SteadError) as caught:
        check_order("stop", name, manager_of(FakeScm()).checked_name)
    assert caught.value.code is Code.DENIED


def test_an_answer_that_is_cut_short_is_refused() -> None:
    whole = struct.pack("<9I", 0x10, 9, 0, 0, 0, 0, 0, 0, 0)
    assert parse_status(whole).state == "unknown"
    for end in range(len(whole)):
        with pytest.raises(InvalidError):
            parse_status(whole[:end])
