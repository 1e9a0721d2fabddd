"""Run the collectors, each within its time budget, and seal what they found.

Every collector has a thread of its own: they wait for programs side by side, and one
that hangs (a dead file server, say) costs its own section only. The threads are
daemons, because a hung one cannot be ended: call this from a short-lived process.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.host import clock
from agent.host.process import Finished, Run
from agent.inventory.chosen import SECTIONS
from agent.inventory.delta import root_of
from agent.inventory.section import Section, encode_facts, encode_unavailable
from agent.inventory.sources import Sources
from protocol.errors import Code, InvalidError, SteadError

GRACE_S = 0.2  # for ending the program of a section whose time is up


@dataclass(frozen=True, slots=True)
class SectionResult:
    """A section's body, the BLAKE3 hash of it (32 bytes), and the seconds it took."""

    body: bytes
    hash: bytes
    took_s: float
    available: bool


@dataclass(frozen=True, slots=True)
class Collection:
    """The sections that were asked for, by name."""

    results: Mapping[str, SectionResult]

    @property
    def manifest(self) -> dict[str, bytes]:
        """Section names and hashes; see `agent.inventory.delta`."""
        return {name: result.hash for name, result in self.results.items()}

    @property
    def root(self) -> bytes:
        """One hash over the manifest."""
        return root_of(self.manifest)


def collect(
    names: Iterable[str] | None = None,
    *,
    sources: Sources,
    budget: float | None = None,
    sections: Sequence[Section] = SECTIONS,
) -> Collection:
    """Collect the named sections, or all of them.

    `budget` in seconds shortens the time that each section has; a section that takes
    longer is unavailable, with that reason. Raises `InvalidError` for an unknown name.
    """
    known = {section.name: section for section in sections}
    unknown = sorted(set(names or ()) - known.keys())
    if unknown:
        raise InvalidError(
            f"no section is called {unknown[0][:80]!r}; there are: {', '.join(sorted(known))}"
        )
    wanted = [known[name] for name in sorted(known if names is None else set(names))]
    attempts = [_Attempt(section, sources, budget) for section in wanted]
    for attempt in attempts:
        attempt.start()
    return Collection({attempt.section.name: attempt.result() for attempt in attempts})


class _Attempt:
    """One collector on its way: started in a thread, waited for until its time is up."""

    def __init__(self, section: Section, sources: Sources, budget: float | None) -> None:
        self.section = section
        self._allowed = section.budget_s if budget is None else min(budget, section.budget_s)
        self._began = clock.monotonic()
        self._deadline = self._began + self._allowed
        self._sources = dataclasses.replace(sources, run=_until(self._deadline, sources.run))
        self._ended_at = self._began
        self._body: bytes | None = None
        self._reason: str | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"section-{section.name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        try:
            self._body = encode_facts(self.section, self.section.collect(self._sources))
        except SteadError as error:
            late = error.code is Code.TIMED_OUT
            self._reason = self._too_long() if late else str(error)
        except Exception as error:  # noqa: BLE001 - a broken collector becomes a reason, never a crash
            self._reason = f"the collector failed with {type(error).__name__}: {error}"
        self._ended_at = clock.monotonic()

    def _too_long(self) -> str:
        return f"took longer than {self._allowed:g} s"

    def result(self) -> SectionResult:
        self._thread.join(max(self._deadline - clock.monotonic(), 0) + GRACE_S)
        if self._thread.is_alive():
            return self._seal(None, self._too_long(), self._allowed)
        return self._seal(self._body, self._reason, self._ended_at - self._began)

    def _seal(self, body: bytes | None, reason: str | None, took_s: float) -> SectionResult:
        from blake3 import blake3

        sealed = encode_unavailable(self.section, reason or "") if body is None else body
        return SectionResult(sealed, blake3(sealed).digest(), took_s, body is not None)


def _until(deadline: float, run: Run) -> Run:
    """`run`, with no program allowed to go on past the deadline."""

    def run_within(
        *argv: str,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Finished:
        left = max(deadline - clock.monotonic(), 0.001)
        return run(*argv, stdin=stdin, timeout=min(timeout, left), env=env, on_output=on_output)

    return run_within
