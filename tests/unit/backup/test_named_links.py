"""A backup set that names a symbolic link must not look like one that holds what it leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import NotFoundError
from tests.unit.backup.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    (made.files / "sub").mkdir()
    (made.files / "sub" / "file").write_text("kept")
    return made


def test_a_named_link_to_something_that_is_not_backed_up_is_told(machine: Machine) -> None:
    real = machine.files.rename(machine.home / "real")
    machine.files.symlink_to(real)
    for _ in range(2):
        report = machine.back_up()
        assert not report.is_complete
        [said] = report.skipped.as_json()
        assert said["path"] == str(machine.files)
        assert f"name {real}" in said["reason"]
    # Where that is backed up as well, a link is a link.
    assert machine.back_up(machine.files, real).is_complete
    assert machine.back_up(machine.files, real.parent).is_complete
    real.rename(machine.home / "elsewhere")
    assert machine.back_up().is_complete


def test_a_path_that_leads_through_a_link_is_told_with_the_path_to_name(machine: Machine) -> None:
    (machine.home / "way").symlink_to(machine.files)
    with pytest.raises(NotFoundError, match=f"to {machine.files}; name that"):
        machine.back_up(machine.home / "way" / "sub")
