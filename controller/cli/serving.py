"""Run the controller in the foreground, as a service manager or a person starts it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import msgspec
import structlog
from rich_click import echo

from controller.app import Controller
from controller.config import Settings


def settings_with(
    settings: Settings,
    *,
    listen: str | None,
    enroll_listen: str | None,
    database: str | None,
    objects: str | None,
) -> Settings:
    """The settings with what was given on the command line in the place of the file's."""
    given = {
        "listen": listen,
        "enroll_listen": enroll_listen,
        "database": database,
        "objects": objects,
    }
    return msgspec.structs.replace(settings, **{k: v for k, v in given.items() if v})


async def serve_until_signalled(home: Path, settings: Settings) -> None:
    """Serve, say on one line where, and stop cleanly at SIGTERM or SIGINT."""
    write_logs()
    allow_connections()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    controller = await Controller.serve(home, settings)
    try:
        echo(
            f"listening: {controller.addresses.link} (machines, operators), "
            f"{controller.addresses.enrollment} (enrollment); process {os.getpid()}"
        )
        sys.stdout.flush()
        await stop.wait()
    finally:
        await controller.stop()


def allow_connections() -> None:
    """Have as many descriptors as the system allows: each machine's link takes one.

    The usual 1,024 would be used up by a thousand idle connections, and then no file of
    the store could be opened either.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def write_logs() -> None:
    """Send the log to standard error: coloured on a terminal, one JSON object a line else."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="iso", utc=True, key="timestamp" if terminal else "at"
            ),
            structlog.processors.StackInfoRenderer(),
            *([] if terminal else [structlog.processors.format_exc_info]),
            # The default for a terminal prints local variables, and with them secrets.
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if terminal
            else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
