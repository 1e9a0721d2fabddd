"""Start an ordered program on Windows: it begins once it is in a job of its own."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import asynccontextmanager

    from agent.host.family import APART, end_group, let_go, take_in
    from agent.host.process import KILLED_WITHIN_S, Child, ProgramError, located
    from protocol.limits import Limits

    @asynccontextmanager
    async def begun(
        argv: Sequence[str],
        on_output: Callable[[int, bytes], None],
        environment: Mapping[str, str],
        directory: str,
        task: str,
        limits: Limits,
    ) -> AsyncIterator[Child]:
        """See `agent.host.process.started`. The job is the task's; no mark is needed."""
        del task
        try:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: Child(on_output),
                *located(argv, environment),
                env=environment,
                cwd=directory,
                **APART,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ProgramError(f"cannot start {argv[0][:200]}: {reason}") from error
        try:
            try:
                child.missed = take_in(child.pid, limits)
            except OSError as error:
                child.kill()
                raise ProgramError(
                    f"cannot start {argv[0][:200]} in a job of its own: {error.strerror}"
                ) from error
            yield child
        finally:
            end_group(child.pid)
            await asyncio.wait({child.exited}, timeout=KILLED_WITHIN_S)
            let_go(child.pid)
            child.close()
