from __future__ import annotations

from pathlib import Path

import pytest

from agent.inventory.sections import services
from protocol.errors import UnavailableError
from tests.unit.inventory.machines import machine, recorded, tree

BOOTED = {"/run/systemd/system/.keep": ""}
JSON = {
    "systemctl list-units": recorded("systemctl-list-units.json"),
    "systemctl list-unit-files": recorded("systemctl-list-unit-files.json"),
}
TABLE = {
    "systemctl list-units": recorded("systemctl-list-units-239.txt"),
    "systemctl list-unit-files": recorded("systemctl-list-unit-files-239.txt"),
}


def test_systemd_tells_how_services_start_and_whether_they_run(tmp_path: Path) -> None:
    facts = services.collect(machine(tree(tmp_path, BOOTED), JSON))
    assert facts.source == "systemd"
    assert [(item.name, item.start, item.state) for item in facts.services] == [
        ("apt-daily", "static", "on demand"),
        ("cron", "enabled", "running"),
        ("flaky", "enabled", "restarting"),
        ("getty@tty1", "enabled", "running"),
        ("networking", "enabled", "done"),
        ("nginx", "enabled", "failed"),
        ("rsync", "disabled", "stopped"),
        ("ssh", "enabled", "running"),
        ("sudo", "masked", "stopped"),
        ("systemd-hostnamed", "static", "on demand"),
    ]


def test_the_tables_of_an_older_systemd_say_the_same(tmp_path: Path) -> None:
    root = tree(tmp_path, BOOTED)
    assert services.collect(machine(root, TABLE)) == services.collect(machine(root, JSON))


def test_a_log_in_or_a_timer_changes_no_service() -> None:
    units = JSON["systemctl list-units"]
    files = JSON["systemctl list-unit-files"]
    later = units.replace("user@1000", "user@1001").replace(
        '"active":"activating","sub":"start"', '"active":"inactive","sub":"dead"'
    )
    assert later != units
    assert services.services_of(later, files) == services.services_of(units, files)


def test_unit_files_of_debian_12_are_understood() -> None:
    found = services.parse_unit_files(recorded("systemctl-list-unit-files-debian12.json"))
    assert found["apt-daily.service"] == "static"
    known = "alias disabled enabled enabled-runtime generated indirect masked static"
    assert set(found.values()) <= set(known.split())


def test_json_that_systemctl_never_prints_is_refused() -> None:
    with pytest.raises(UnavailableError, match="unknown"):
        services.services_of("[{]", "[]")
    with pytest.raises(UnavailableError, match="'load'"):
        services.services_of('[{"unit":"a.service"}]', "[]")


def test_without_systemd_the_scripts_are_told_and_what_is_unknown_is_called_so(
    tmp_path: Path,
) -> None:
    files = {
        "/etc/init.d/cron": "#!/bin/sh\n### BEGIN INIT INFO\n# Short-Description: Clock daemon\n",
        "/etc/init.d/dbus": "#!/bin/sh\n",
        "/etc/init.d/gone": "#!/bin/sh\n",
        "/etc/init.d/skeleton": "",
        "/etc/init.d/README": "",
        "/etc/rc2.d/S01cron": "",
        "/etc/rc2.d/K01dbus": "",
        "/run/crond.pid": "41\n",
        "/run/gone.pid": "42\n",
        "/proc/41/stat": "41 (cron) S",
    }
    facts = services.collect(machine(tree(tmp_path, files)))
    assert facts.source == "init.d"
    assert facts.services == [
        services.Service("cron", "enabled", "running", "Clock daemon"),
        services.Service("dbus", "disabled", "unknown", ""),
        services.Service("gone", "disabled", "stopped", ""),
    ]
    assert "state" in facts.gaps


def test_without_any_init_the_section_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="systemd does not run here"):
        services.collect(machine(tmp_path))
