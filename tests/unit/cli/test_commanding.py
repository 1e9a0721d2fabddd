"""The programs of a backup as they are typed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controller.cli.options.commanding import commands_of
from protocol.errors import InvalidError
from protocol.selection import NO_COMMANDS, Commands, CommandStream


def _typed(**options: Any) -> Commands:
    return commands_of(
        {"streams": (), "before": None, "after": None, "command_timeout": None} | options
    )


def test_programs_are_split_here_and_without_a_shell() -> None:
    typed = _typed(
        before="sh -c 'sync; sync'",
        command_timeout=timedelta(minutes=2),
    )
    assert typed.before == ("sh", "-c", "sync; sync")
    assert typed.limit_s == 120
    typed = _typed(streams=("/streams/x=pg_dump --file 'x y' $HOME | gzip",))
    argv = ("pg_dump", "--file", "x y", "$HOME", "|", "gzip")
    assert typed == Commands((CommandStream(b"/streams/x", argv),))
    assert _typed() == NO_COMMANDS
    assert not _typed().any


@pytest.mark.parametrize(
    "options",
    [
        {"streams": ("/streams/x",)},
        {"streams": ("/streams/x=",)},
        {"streams": ("streams/x=true",)},
        {"streams": ("/streams/x=echo 'open",)},
        {"before": "echo 'open"},
        {"command_timeout": timedelta(minutes=2)},
        {"before": "true", "command_timeout": timedelta(days=8)},
        {"before": "true", "command_timeout": timedelta()},
    ],
)
def test_what_is_no_program_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        _typed(**options)
