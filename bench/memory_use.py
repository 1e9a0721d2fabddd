"""Peak memory of a process with all that it starts, each page counted once.

What is counted is the proportional set size: a page that n processes share counts as
1/n in each. Adding up resident sizes would count what a fork shares once for every
process. What the system itself keeps of a child's peak would not do either: it counts
the memory of this very program, of which a child is a copy until it becomes another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

EVERY_S = 0.1
"""Looking walks over the pages of a process, so it is not done all the time."""


def proportional_kib(pid: int) -> int:
    """The proportional set size of one process, in KiB; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


@contextmanager
def peak_of(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """The most KiB that a process and its children took together while the block ran."""
    peak, ended = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(EVERY_S):
            try:
                family = [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
            peak = max(peak, sum(proportional_kib(one.pid) for one in family))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: peak
    finally:
        ended.set()
        thread.join()


def service_of(home: Path, program: str, word: str) -> psutil.Process:
    """The running service of an installation: `program` with `word` in its command."""
    for process in psutil.process_iter():
        try:
            words, environment = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        ours = environment.get("STEAD_HOME") == str(home)
        if ours and word in words and any(one.endswith(f"/{program}") for one in words):
            return process
    raise SystemExit(f"{program} is not running")
