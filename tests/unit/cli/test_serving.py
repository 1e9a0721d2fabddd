"""How a controller is run: what its log holds, and how many connections it can have."""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Iterator

import pytest
import structlog

from controller.cli.serving import allow_connections, write_logs


class Screen(io.StringIO):
    """Standard error, be it a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


def fail(token: str) -> None:
    kept = token
    raise ValueError(f"{len(kept)} characters are too many")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_traceback_in_the_log_has_no_local_variables(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    write_logs()
    try:
        fail(f"stead{1}-secret")
    except ValueError as error:
        structlog.get_logger().error("call_failed", exc_info=error)
    assert "13 characters are too many" in screen.getvalue()
    assert "stead1-secret" not in screen.getvalue()


def test_a_line_of_the_log_has_the_words_of_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr(sys, "stderr", screen)
    write_logs()
    structlog.get_logger().info("controller_started")
    line = json.loads(screen.getvalue())
    assert line.keys() == {"at", "level", "event"}


def test_a_controller_may_have_as_many_connections_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
