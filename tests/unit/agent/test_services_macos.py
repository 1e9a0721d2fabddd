"""launchd: what `launchctl` prints, and what it is called with."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest

from agent.host.launchd import parse_disabled
from agent.host.process import Finished, ProgramError
from agent.services.launchd import (
    Launchd,
    parse_print,
    program_of,
    read_plist,
    state_of,
)
from agent.services.manager import ServiceError, Status, check_order
from protocol.errors import Code, SteadError
from tests.fakes.service_managers import Launchctl

DATA = Path(__file__).parents[2] / "data/services"


def launchd(launchctl: Launchctl, folder: Path) -> Launchd:
    return Launchd(launchctl, lambda pid: pid * 10, lambda _: None, (folder,))


def test_only_values_of_the_first_level_are_read() -> None:
    printed = parse_print((DATA / "launchctl-print.txt").read_text())
    assert printed["state"] == "running"
    assert printed["pid"] == "812"
    assert printed["path"] == "/Library/LaunchDaemons/org.example.web.plist"
    assert printed["last exit code"] == "(never exited)"
    assert "arguments" not in printed


def test_the_words_of_old_and_new_releases_say_whether_it_is_disabled() -> None:
    assert parse_disabled((DATA / "launchctl-print-disabled.txt").read_text()) == {
        "com.apple.CSCSupportd": True,
        "com.openssh.sshd": False,
        "org.example.old": True,
        "org.example.new": False,
    }


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ({"state": "running", "last exit code": "1"}, ("running", "")),
        ({"state": "spawn scheduled"}, ("restarting", "")),
        ({"state": "not running"}, ("stopped", "")),
        ({"state": "not running", "last exit code": "0"}, ("done", "")),
        ({"state": "not running", "last exit code": "1"}, ("failed", "exit code 1")),
        (
            {"state": "not running", "last terminating signal": "Killed: 9"},
            ("failed", "ended by signal Killed: 9"),
        ),
        ({"state": "waiting"}, ("waiting", "")),
        ({}, ("unknown", "")),
    ],
)
def test_a_loaded_service_has_one_state(printed: dict[str, str], state: tuple[str, str]) -> None:
    assert state_of(printed) == state


def test_a_service_is_shown_with_what_its_file_and_launchd_say(tmp_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    manager = launchd(launchctl, tmp_path)
    asleep = Status("web", "/usr/local/bin/web", "stopped", "enabled", "not loaded")
    assert manager.show(["web"]) == [asleep]
    manager.act("start", "web")
    awake = Status("web", "/usr/local/bin/web", "running", "enabled", pid=812, memory_bytes=8120)
    assert manager.show(["web"]) == [awake]
    launchctl.running, launchctl.ended = False, "78: EX_CONFIG"
    [failed] = manager.show(["web"])
    assert (failed.state, failed.detail) == ("failed", "exit code 78: EX_CONFIG")


def test_launchctl_is_called_to_the_letter(tmp_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    manager = launchd(launchctl, tmp_path)
    for verb in ("enable", "start", "restart", "stop", "disable"):
        manager.act(verb, "web")
    told = [call[1:] for call in launchctl.calls if call[1] not in ("print", "print-disabled")]
    assert told == [
        ("enable", "system/web"),
        ("bootstrap", "system", str(tmp_path / "web.plist")),
        ("kickstart", "system/web"),
        ("kickstart", "-k", "system/web"),
        ("bootout", "system/web"),
        ("disable", "system/web"),
    ]


def test_a_file_of_another_name_is_found_by_its_label(tmp_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    (tmp_path / "another.plist").write_bytes(b"<plist><dict>")
    (tmp_path / "dated.plist").write_bytes(
        b"<plist><dict><key>a</key><date>x</date></dict></plist>"
    )
    launchctl.path = launchctl.path.rename(tmp_path / "zz.plist")
    launchd(launchctl, tmp_path).act("start", "web")
    assert launchctl.running


def test_a_file_with_the_name_and_another_label_is_not_taken(tmp_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    launchctl.path.write_bytes(plistlib.dumps({"Label": "evil"}))
    with pytest.raises(SteadError) as caught:
        launchd(launchctl, tmp_path).act("start", "web")
    assert caught.value.code is Code.NOT_FOUND
    assert not any(call[1] == "bootstrap" for call in launchctl.calls)


def test_what_takes_time_to_end_is_waited_for(tmp_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    manager = launchd(launchctl, tmp_path)
    manager.act("start", "web")
    launchctl.lingers = 3
    manager.act("stop", "web")
    assert launchctl.lingers == 0
    manager.act("start", "web")
    launchctl.lingers = 10_000
    with pytest.raises(ProgramError, match="is there 30 s later"):
        manager.act("stop", "web")


def test_what_launchctl_says_of_a_failure_is_passed_on(tmp_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    launchctl.disabled = True
    manager = launchd(launchctl, tmp_path)
    with pytest.raises(ServiceError, match="bootstrap ended with 119: Bootstrap failed: 119"):
        manager.act("start", "web")
    [found] = manager.show(["web"])
    assert found.start == "disabled"


def test_an_unknown_error_is_no_service_that_is_not_there(tmp_path: Path) -> None:
    def failing(*argv: str, **_: object) -> Finished:
        return Finished(argv, 0 if argv[1] == "print-disabled" else 5, b"", b"Input/output error")

    with pytest.raises(SteadError, match="ended with 5") as caught:
        Launchd(failing, lambda _: None, lambda _: None, (tmp_path,)).show(["web"])
    assert caught.value.code is Code.PRECONDITION


@pytest.mark.parametrize("label", ["", "-k", "a/b", "../x", "a\nb", "a;b", "$(x)", "x" * 300, "é"])
def test_what_cannot_be_a_label_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(SteadError) as caught:
        launchd(Launchctl(tmp_path), tmp_path).checked_name(label)
    assert caught.value.code is Code.INVALID


def test_labels_that_a_unit_could_not_have_are_taken(tmp_path: Path) -> None:
    manager = launchd(Launchctl(tmp_path), tmp_path)
    for label in ("com.docker.socket", "com.apple.mount", "application.com.x.1 (2)"):
        assert check_order("stop", label, manager.checked_name) == label
    with pytest.raises(SteadError) as caught:
        check_order("stop", "stead-agent", manager.checked_name)
    assert caught.value.code is Code.DENIED


def test_a_file_that_is_no_description_is_none(tmp_path: Path) -> None:
    for content in (b"", b"bplist00garbage", b"<plist><array/></plist>", b"\0" * 2_000_000):
        (tmp_path / "x.plist").write_bytes(content)
        assert read_plist(tmp_path / "x.plist") is None
    assert read_plist(tmp_path / "none") is None
    assert program_of({"ProgramArguments": "no list"}) == ""
    assert program_of({"Program": "/bin/a", "ProgramArguments": ["b"]}) == "/bin/a"
