"""Run a program that leaves another one running, and wait for the first alone.

What is left running has inherited the program's output: who waits for the end of a pipe
waits for the end of a service. So the output goes to files.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from typing import IO

from agent.host.family import end_group, let_go
from agent.host.process import OUTPUT_LIMIT_BYTES, Finished, ProgramError, begin
from protocol.errors import Code


def run_leaving(
    *argv: str,
    stdin: bytes = b"",
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Finished:
    """See `agent.host.process.Run`. Output is passed on at the end, and standard input is empty."""
    assert not stdin
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = begin(
            argv, stdin=subprocess.DEVNULL, env=env, stdout=out.fileno(), stderr=err.fileno()
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            end_group(process.pid)
            process.wait()
            raise ProgramError(
                f"{argv[0]} did not end within {timeout:g} s", code=Code.TIMED_OUT
            ) from None
        except BaseException:
            end_group(process.pid)
            raise
        finally:
            let_go(process.pid)
        finished = Finished(argv, code, _all(out), _all(err))
    if on_output is not None:
        on_output(finished.stdout + finished.stderr)
    return finished


def _all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(OUTPUT_LIMIT_BYTES)
