"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# Neither asks how fast a machine is; what hangs is ended by pytest's own time-out.
settings.register_profile("stead", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stead")


def pytest_configure() -> None:
    """Where a shell that runs tests in the background ignores Ctrl-C, their programs do not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the long forms counted: how much they tried, and what was lost."""
    told = [
        (one.nodeid, one.capstdout.strip())
        for one in terminalreporter.getreports("passed")
        if one.when == "call" and "full" in one.keywords and one.capstdout.strip()
    ]
    if told:
        terminalreporter.section("what the long forms counted")
    for name, counted in told:
        terminalreporter.line(f"{name.removeprefix('tests/')}\n    {counted}")
