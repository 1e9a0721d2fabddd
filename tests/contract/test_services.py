"""Whatever runs services: one suite for real init scripts, and for what does not run here as
it answers: systemd, launchd, and Windows' service control manager.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.actions.services import control, listed, problem_of
from agent.host.leaving import run_leaving
from agent.host.process import Finished
from agent.inventory.sources import sources_at
from agent.services.detect import detect_services
from agent.services.initd import InitD
from agent.services.launchd import Launchd
from agent.services.manager import (
    VERBS,
    ServiceError,
    ServiceManager,
    Status,
    check_order,
    unit_name,
)
from agent.services.systemd import Systemd, parse_show, status_of
from agent.services.windows import WindowsServices
from protocol.errors import Code, SteadError
from protocol.outcome import OutcomeState
from tests.fakes.service_managers import FakeScm, Launchctl

RECORDED = (Path(__file__).parents[1] / "data/services/systemctl-show.txt").read_text()

SCRIPT = """#!/bin/sh
# It daemonizes badly, as many do: the service keeps the script's output open.
pid="$(dirname "$0")/$(basename "$0").pid"
case "$1" in
start) sleep 600 & echo $! > "$pid" ;;
stop) [ -f "$pid" ] && kill "$(cat "$pid")" && rm "$pid" ;;
restart) "$0" stop; "$0" start ;;
status) [ -f "$pid" ] && kill -0 "$(cat "$pid")" || exit 3 ;;
*) exit 2 ;;
esac
"""


class Systemctl:
    """Answers `show` and changes what it says of `web`; `calls` are what it was called with."""

    def __init__(self) -> None:
        self.active, self.file = "inactive", "disabled"
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *argv: str, **_: object) -> Finished:
        self.calls.append(argv)
        assert argv[-2] == "--"
        unit = argv[-1]
        if "show" in argv:
            load = "loaded" if unit == "web.service" else "not-found"
            said = (
                f"Id={unit}\nLoadState={load}\nActiveState={self.active}\nSubState=x\n"
                f"UnitFileState={self.file}\nMainPID=0\n"
            )
            return Finished(argv, 0, said.encode(), b"")
        verb = argv[-3]
        self.active = {"start": "active", "restart": "active", "stop": "inactive"}.get(
            verb, self.active
        )
        self.file = {"enable": "enabled", "disable": "disabled"}.get(verb, self.file)
        return Finished(argv, 0, b"", b"")


@pytest.fixture(params=["systemd", "init.d", "launchd", "windows"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    """A manager with one service, `web`, which stands still."""
    if request.param == "systemd":
        yield Systemd(Systemctl())
        return
    if request.param == "launchd":
        launchctl = Launchctl(tmp_path)
        yield Launchd(launchctl, lambda _: 4096, lambda _: None, (tmp_path,))
        return
    if request.param == "windows":
        scm = FakeScm()
        yield WindowsServices(scm, scm.described, lambda _: 4096, scm.wait)
        return
    scripts = tmp_path / "init.d"
    scripts.mkdir()
    (scripts / "web").write_text(SCRIPT)
    (scripts / "web").chmod(0o755)
    yield InitD(run_leaving, scripts)
    pid = scripts / "web.pid"
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGKILL)


def state(manager: ServiceManager) -> str:
    [found] = manager.show(["web"])
    return found.state


def test_a_service_starts_restarts_and_stops(manager: ServiceManager) -> None:
    assert state(manager) == "stopped"
    manager.act("start", "web")
    assert state(manager) == "running"
    manager.act("restart", "web")
    assert state(manager) == "running"
    manager.act("stop", "web")
    assert state(manager) == "stopped"


def test_a_change_is_reported_with_what_was_and_what_is(manager: ServiceManager) -> None:
    ended = control(manager, "start", "web")
    assert ended.state is OutcomeState.SUCCEEDED
    assert b'"state":"stopped"' in ended.result.partition(b'"after"')[0]
    assert b'"state":"running"' in ended.result.partition(b'"after"')[2]


def test_a_service_that_there_is_not_is_named(manager: ServiceManager) -> None:
    with pytest.raises(SteadError, match="no service 'wbe'") as caught:
        control(manager, "start", "wbe")
    assert caught.value.code is Code.NOT_FOUND


def test_whether_a_service_starts_by_itself_is_changed(manager: ServiceManager) -> None:
    if isinstance(manager, InitD):
        return  # that is `update-rc.d`'s, which must not be let loose on this machine
    for verb in ("enable", "disable", "enable"):
        ended = control(manager, verb, "web")
        assert ended.state is OutcomeState.SUCCEEDED
        [found] = manager.show(["web"])
        assert (found.start == "disabled") is (verb == "disable")


def test_starting_what_runs_and_stopping_what_stands_is_no_failure(
    manager: ServiceManager,
) -> None:
    if isinstance(manager, InitD):
        return  # what a script makes of that is its own affair
    for verb in ("stop", "start", "start", "stop", "stop"):
        assert control(manager, verb, "web").state is OutcomeState.SUCCEEDED


def test_systemctl_is_called_so_that_no_name_is_an_option() -> None:
    systemctl = Systemctl()
    for verb in VERBS:
        Systemd(systemctl).act(verb, "web")
    assert systemctl.calls == [
        ("systemctl", "--no-pager", "--no-ask-password", verb, "--", "web.service")
        for verb in VERBS
    ]


def test_what_systemctl_says_of_a_failure_is_passed_on() -> None:
    def failing(*argv: str, **_: object) -> Finished:
        return Finished(argv, 1, b"", b"Failed to start web.service: Unit is masked.\n")

    with pytest.raises(ServiceError, match="Unit is masked"):
        Systemd(failing).act("start", "web")


def test_what_an_init_script_says_of_a_failure_is_passed_on(tmp_path: Path) -> None:
    script = tmp_path / "web"
    script.write_text("#!/bin/sh\necho no such port >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(ServiceError, match="ended with 1: no such port"):
        InitD(run_leaving, tmp_path).act("start", "web")


def test_an_init_script_that_is_linked_into_a_level_starts_by_itself(tmp_path: Path) -> None:
    scripts, level = tmp_path / "init.d", tmp_path / "rc3.d"
    scripts.mkdir()
    level.mkdir()
    (scripts / "web").write_text("#!/bin/sh\nexit 3\n")
    (scripts / "web").chmod(0o755)
    manager = InitD(run_leaving, scripts)
    assert [one.start for one in manager.show(["web"])] == ["disabled"]
    (level / "S02web").symlink_to(scripts / "web")
    assert [one.start for one in manager.show(["web"])] == ["enabled"]


def test_the_properties_of_units_are_read() -> None:
    nginx, backup, networking, missing = parse_show(RECORDED)
    assert status_of(nginx) == Status(
        name="nginx",
        description="A high performance web server and a reverse proxy server",
        state="running",
        start="enabled",
        detail="running",
        pid=812,
        memory_bytes=7323648,
        restarts=0,
        since="Mon 2026-05-04 07:12:33 UTC",
    )
    failed = status_of(backup)
    assert (failed.state, failed.detail, failed.start) == ("failed", "failed, exit-code", "static")
    assert (failed.description, failed.memory_bytes) == ("Dump = the database", None)
    done = status_of(networking)
    assert (done.state, done.memory_bytes, done.restarts) == ("done", None, None)
    with pytest.raises(SteadError, match="no service 'auditd'"):
        status_of(missing)


@pytest.mark.parametrize(
    "name",
    [
        *["", "-f", "--now", "a b", "a/b", "../cron", "a;b", "$(id)", "*", "a\nb", "a..b"],
        *["-.mount", "tmp.mount", "reboot.target", "ssh.socket", "web.service.timer", "a\0"],
        *["x" * 300, "é"],
    ],
)
def test_what_cannot_be_a_service_is_refused(name: str) -> None:
    for verb in VERBS:
        with pytest.raises(SteadError) as caught:
            check_order(verb, name, unit_name)
        assert caught.value.code is Code.INVALID


def test_names_that_systemd_allows_are_taken() -> None:
    for name in ("getty@tty1", "dbus-org.freedesktop.login1", "dev-a\\x2db", "php8.2-fpm", "0a"):
        assert unit_name(f"{name}.service") == unit_name(name) == name


@pytest.mark.parametrize("verb", ["stop", "restart", "disable"])
def test_the_agent_does_not_end_itself(verb: str) -> None:
    with pytest.raises(SteadError, match="does not end itself") as caught:
        check_order(verb, "stead-agent.service", unit_name)
    assert caught.value.code is Code.DENIED


@pytest.mark.parametrize("verb", ["daemon-reload", "mask", "", "--help"])
def test_nothing_else_is_done_to_services(verb: str) -> None:
    with pytest.raises(SteadError, match="nothing to do to a service"):
        check_order(verb, "web", unit_name)


@pytest.mark.parametrize(
    ("verb", "state", "start", "good"),
    [
        ("start", "running", "disabled", True),
        ("start", "done", "disabled", True),
        ("start", "failed", "enabled", False),
        ("restart", "stopped", "enabled", False),
        ("stop", "running", "enabled", False),
        ("stop", "failed", "enabled", True),
        ("enable", "stopped", "disabled", False),
        ("disable", "running", "disabled", True),
    ],
)
def test_a_change_is_judged_by_what_is_there_afterwards(
    verb: str, state: str, start: str, good: bool
) -> None:
    assert (problem_of(verb, Status("web", "", state, start)) == "") is good


def test_a_service_whose_description_is_no_text_is_listed_with_the_others(tmp_path: Path) -> None:
    scripts = tmp_path / "etc/init.d"
    scripts.mkdir(parents=True)
    (scripts / "web").write_bytes(b"#!/bin/sh\n# Short-Description: Gr\xf6\xdfe\n")
    told = msgspec.json.decode(listed(sources_at(tmp_path)).result)
    assert [(one["name"], one["description"]) for one in told["services"]] == [
        ("web", "Gr\\xf6\\xdfe")
    ]


def test_a_machine_with_neither_says_so(tmp_path: Path) -> None:
    with pytest.raises(SteadError, match="systemd does not run here") as caught:
        detect_services(booted=tmp_path / "none", scripts=tmp_path / "none")
    assert caught.value.code is Code.UNSUPPORTED
    assert isinstance(detect_services(booted=tmp_path), Systemd)
