"""Say how each step of a transaction ended, by what dpkg has afterwards and what it said."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.patching.manager import LOG_TAIL_CHARS, Applied, FailedStep
from agent.patching.managers.apt_errors import step_failure
from agent.patching.managers.apt_parse import Installed, parse_kept_conffiles, qualify
from agent.patching.plan import Change, PatchPlan, Step
from protocol.errors import SteadError

# Enough for the messages of a few hundred packages; a chatty script costs only its tail.
_KEPT_BYTES = 4 * 1024 * 1024
_DONE = {"installed", "triggers-pending", "triggers-awaited"}


class LogTail:
    """The end of what a transaction printed, bounded, while it is passed on."""

    def __init__(self, forward: Callable[[bytes], None] | None) -> None:
        self._forward = forward
        self._kept = bytearray()

    def add(self, piece: bytes) -> None:
        """Keep a piece and pass it on."""
        self._kept += piece
        del self._kept[:-_KEPT_BYTES]
        if self._forward is not None:
            self._forward(piece)

    def text(self) -> str:
        """What is kept."""
        return self._kept.decode(errors="replace")


def build_applied(
    plan: PatchPlan,
    before: Mapping[str, Installed],
    after: Mapping[str, Installed],
    native: str,
    problem: str,
    log: str,
) -> Applied:
    """Compare the plan with the packages before and after it; `log` is what apt printed."""
    done: list[Step] = []
    failed: list[FailedStep] = []
    for step in plan.steps:
        package = qualify(step.name, step.arch, native)
        known = after.get(package)
        if _is_done(step, known):
            done.append(step)
            continue
        untouched = known == before.get(package)
        failed.append(
            FailedStep(
                step=step,
                state=known.state if known else "not-installed",
                installed=known.version if known and known.present else "",
                reason=step_failure(log, package)
                or ("not reached" if untouched else "waits for another package that failed"),
            )
        )
    return Applied(
        done=tuple(done),
        failed=tuple(failed),
        kept_conffiles=parse_kept_conffiles(log),
        problem=problem,
        log_tail=log[-LOG_TAIL_CHARS:],
    )


def build_unseen(
    plan: PatchPlan, problem: SteadError | None, blind: SteadError, log: str
) -> Applied:
    """A transaction that was started and whose outcome cannot be looked at."""
    failed = (
        FailedStep(step=step, state="unknown", installed="", reason=str(blind))
        for step in plan.steps
    )
    return Applied(
        done=(),
        failed=tuple(failed),
        kept_conffiles=parse_kept_conffiles(log),
        problem=str(problem or blind),
        log_tail=log[-LOG_TAIL_CHARS:],
    )


def _is_done(step: Step, known: Installed | None) -> bool:
    if step.change is Change.REMOVE:
        return known is None or not known.present
    return known is not None and known.version == step.new and known.state in _DONE
