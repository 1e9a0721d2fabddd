"""Count refused enrollments, so that the audit log has them without growing by each.

Guessing a token is hopeless; knowing that somebody tries is worth a line a minute.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from protocol.errors import Code, SteadError

INTERVAL = timedelta(minutes=1)


class EnrollmentRefusedError(SteadError):
    """An enrollment or renewal that was refused; `tenant` is whose affair it is, if known."""

    code = Code.TOKEN_INVALID

    def __init__(self, message: str, *, code: Code, tenant: str | None = None) -> None:
        super().__init__(message, code=code)
        self.tenant = tenant


@dataclass(frozen=True, slots=True)
class Refusals:
    """How many were refused for one tenant ("" when none is known), by code."""

    tenant: str
    counts: dict[str, int]


@dataclass(slots=True)
class _Tally:
    written_at: datetime
    counts: Counter[str] = field(default_factory=Counter)


class Failures:
    """Refusals that are not in the audit log yet; at most one entry a minute and tenant."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}

    def note(self, tenant: str | None, code: Code, now: datetime) -> Refusals | None:
        """Count one refusal; what is to be written now, if anything."""
        key = tenant or ""
        tally = self._tallies.get(key)
        if tally is None:
            self._tallies[key] = _Tally(now)
            return Refusals(key, {code.value: 1})
        tally.counts[code.value] += 1
        # A clock that was set back does not silence the log.
        if abs(now - tally.written_at) < INTERVAL:
            return None
        taken = Refusals(key, dict(tally.counts))
        self._tallies[key] = _Tally(now)
        return taken

    def rest(self) -> list[Refusals]:
        """Take what was counted and not written."""
        left = [Refusals(key, dict(t.counts)) for key, t in self._tallies.items() if t.counts]
        self._tallies.clear()
        return left
