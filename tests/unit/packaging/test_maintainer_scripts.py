"""What the package's scripts ask of systemd, which stands beside them as a fake."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "packaging" / "linux" / "deb"
FAKE = """\
#!/bin/sh
echo "${0##*/} $*" >>"$CALLS"
case "$1 $2" in
    "show "*) echo "$MAIN" ;;
    "--quiet is-active") [ "$MAIN" != 0 ] ;;
esac
"""
PROGRAMS = ("systemctl", "systemd-run", "deb-systemd-helper", "deb-systemd-invoke")


@dataclass
class Machine:
    """A machine on which systemd runs, and the agent as process `main` (0: it does not)."""

    path: Path
    main: int = 0

    def script(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        runs = self.path / "run"
        runs.mkdir(exist_ok=True)
        environment = {
            "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.path / "calls"),
            "MAIN": str(self.main),
            "STEAD_SYSTEMD_RUNS": str(runs),
        }
        return subprocess.run(
            ["sh", SCRIPTS / name, *words], env=environment, capture_output=True, text=True
        )

    def calls(self, program: str) -> list[str]:
        """What was asked of a program."""
        lines = (self.path / "calls").read_text().splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{program} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    for name in PROGRAMS:
        (tmp_path / "bin" / name).write_text(FAKE)
        (tmp_path / "bin" / name).chmod(0o755)
    return Machine(tmp_path)


def elsewhere() -> int:
    """A process that the scripts do not descend from."""
    return os.getpid() + 1_000_000


def test_a_first_installation_starts_nothing_on_a_machine_that_is_not_enrolled(
    machine: Machine,
) -> None:
    if Path("/var/lib/stead/agent/agent.toml").exists():
        pytest.skip("not run: this machine is enrolled itself")
    assert machine.script("postinst", "configure", "").returncode == 0
    assert machine.calls("deb-systemd-invoke") == []
    assert not any(call.startswith("enable") for call in machine.calls("deb-systemd-helper"))


def test_an_upgrade_restarts_a_running_agent(machine: Machine) -> None:
    machine.main = elsewhere()
    assert machine.script("postinst", "configure", "0.1.0").returncode == 0
    assert machine.calls("deb-systemd-invoke") == ["restart stead-agent.service"]


def test_an_upgrade_starts_no_agent_that_was_stopped(machine: Machine) -> None:
    assert machine.script("postinst", "configure", "0.1.0").returncode == 0
    assert machine.calls("deb-systemd-invoke") == []
    assert machine.calls("systemd-run") == []


def test_an_upgrade_by_the_agent_itself_restarts_it_when_it_is_over(machine: Machine) -> None:
    machine.main = os.getpid()
    assert machine.script("postinst", "configure", "0.1.0").returncode == 0
    assert machine.calls("deb-systemd-invoke") == []
    [call] = machine.calls("systemd-run")
    assert "tail --pid=" in call
    assert "systemctl try-restart stead-agent.service" in call


def test_a_removal_stops_the_agent(machine: Machine) -> None:
    machine.main = elsewhere()
    assert machine.script("prerm", "remove").returncode == 0
    assert machine.calls("deb-systemd-invoke") == ["stop stead-agent.service"]


def test_an_upgrade_stops_nothing_before_the_new_agent_is_in_place(machine: Machine) -> None:
    machine.main = elsewhere()
    assert machine.script("prerm", "upgrade", "0.2.0").returncode == 0
    assert not (machine.path / "calls").exists()


def test_the_agent_does_not_remove_itself(machine: Machine) -> None:
    machine.main = os.getpid()
    ended = machine.script("prerm", "remove")
    assert ended.returncode == 1
    assert "systemd-run apt-get" in ended.stderr
    assert machine.calls("deb-systemd-invoke") == []
