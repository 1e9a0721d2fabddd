"""A program and all that it starts, ended together: a process group, or a job on Windows."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

if sys.platform == "win32":
    import subprocess

    import psutil

    from agent.host.job_object import Job
    from protocol.limits import NO_LIMITS, Limits

    KILLED = -9
    """The exit code of what was killed and did not tell one."""

    APART: dict[str, Any] = {
        # Suspended, because it must be in its job before it starts something itself.
        "creationflags": 0x4 | subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    }
    """How `subprocess` is told to start a program apart from the agent."""

    _jobs: dict[int, Job] = {}

    def take_in(pid: int, limits: Limits = NO_LIMITS) -> tuple[str, ...]:
        """Let a program begin that was started with `APART`; which limits it lacks.

        Raises `OSError`; the program has to be killed then.
        """
        job = Job(limits)
        try:
            job.take_in(pid)
            psutil.Process(pid).resume()
        except psutil.Error as error:
            job.close()
            raise OSError(0, str(error)) from error
        except OSError:
            job.close()
            raise
        _jobs[pid] = job
        return job.missed

    def end_group(pid: int) -> None:
        """End a program and all that it started."""
        job = _jobs.get(pid)
        if job is not None:
            job.end()

    def let_go(pid: int) -> None:
        """The program has ended and is waited for no more; what it left running ends, too."""
        job = _jobs.pop(pid, None)
        if job is not None:
            job.close()

else:
    KILLED = -signal.SIGKILL
    """The exit code of what was killed and did not tell one."""

    APART: dict[str, Any] = {"start_new_session": True}
    """How `subprocess` is told to start a program apart from the agent."""

    def take_in(pid: int) -> tuple[str, ...]:
        """Nothing is left to do for a program that was started with `APART`."""
        del pid
        return ()

    def end_group(pid: int) -> None:
        """Kill a process group, grandchildren included."""
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # Nobody is left, or all that is left has become another user's.
            return

    def let_go(pid: int) -> None:
        """Nothing is held of a group."""
        del pid
