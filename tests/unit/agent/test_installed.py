"""Which files tell that an agent was replaced, and what becomes of it, on Windows as well."""

from __future__ import annotations

import sys

import pytest

from agent.host.installed import Installed, begin_anew, own_files
from protocol.errors import Code, SteadError


@pytest.mark.parametrize("system", ["linux", "win32", "darwin"])
def test_an_agent_that_is_not_bundled_may_be_replaced_on_every_system(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert [path.name for path in own_files()] == ["version.py", "launch.py"]
    assert not Installed().is_replaced()


@pytest.mark.parametrize(("system", "count"), [("linux", 1), ("win32", 0)])
def test_nobody_replaces_a_bundle_that_runs_on_windows(
    system: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert len(own_files()) == count


def test_on_windows_a_replaced_agent_ends_to_be_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SteadError, match="files were replaced") as caught:
        begin_anew()
    assert caught.value.code is Code.UPGRADE_REQUIRED
