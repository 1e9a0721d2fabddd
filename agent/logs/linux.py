"""systemd's journal; see `agent.logs.journal`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.host.environment import find_program
from agent.host.process import Run
from agent.logs.journal import journalctl
from agent.logs.span import Span
from agent.logs.system_log import DAY_S
from protocol.errors import Code, SteadError


@dataclass(frozen=True, slots=True)
class Journal:
    """See `SystemLog`. A unit is one of systemd's."""

    run: Run

    def read(
        self,
        unit: str,
        span: Span,
        count: int,
        *,
        follow: bool,
        printed: Callable[[bytes], None],
    ) -> str:
        """See `SystemLog`."""
        argv = journalctl(unit, span, count, follow=follow)
        if find_program(argv[0]) is None:
            raise SteadError(
                "this machine has no journalctl; name a file of its logs with --file",
                code=Code.UNSUPPORTED,
            )
        self.run(*argv, timeout=DAY_S, on_output=printed).checked()
        return ""
