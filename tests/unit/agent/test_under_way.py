"""What `stead-agent status` says of what runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from agent.config import AgentHome
from agent.shown import text_of
from agent.tasks.under_way import noted, under_way


def test_what_runs_is_told_with_its_progress_and_then_no_more(tmp_path: Path) -> None:
    home = AgentHome(tmp_path / "agent")
    assert under_way(home) == []
    with noted(home, "ts_1", "restore_files") as first, noted(home, "ts_2", "run_backup"):
        first.heard({"phase": "restore", "files": 12})
        first._next = 0.0
        first.heard({"phase": "restore", "files": 7})
        found = under_way(home)
        assert [(one.task, one.kind) for one in found] == [
            ("ts_1", "restore_files"),
            ("ts_2", "run_backup"),
        ]
        assert found[0].progress == {"phase": "restore", "files": 7}
        said = text_of(
            [{"kind": one.kind, "since": one.since, "progress": one.progress} for one in found]
        )
        assert said.startswith("restore files since 20")
        assert "(phase restore files 7), run backup since" in said
    assert under_way(home) == []
    assert list(home.under_way.iterdir()) == []


def test_what_was_killed_does_not_run(tmp_path: Path) -> None:
    home = AgentHome(tmp_path / "agent")
    script = """if True:
        import sys, signal
        from pathlib import Path
        from agent.config import AgentHome
        from agent.tasks.under_way import noted
        with noted(AgentHome(Path(sys.argv[1])), "ts_1", "run_backup"):
            print("runs", flush=True)
            signal.pause()
    """
    argv = [sys.executable, "-c", script, str(home.path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        assert [one.task for one in under_way(home)] == ["ts_1"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert under_way(home) == []
    assert list(home.under_way.iterdir()) == []


def test_a_place_that_cannot_be_written_keeps_nothing_from_running(tmp_path: Path) -> None:
    home = AgentHome(tmp_path / "agent")
    home.path.mkdir()
    home.cache.write_bytes(b"in the way")
    with noted(home, "ts_1", "run_backup") as note:
        note.heard({"files": 1})
        assert under_way(home) == []
