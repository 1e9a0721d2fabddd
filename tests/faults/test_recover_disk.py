"""A recovery from a disk of which parts cannot be listed: strace makes the calls fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_recover import Left, left  # noqa: F401 - a fixture

STRACE = shutil.which("strace")
pytestmark = pytest.mark.skipif(STRACE is None, reason="not run: strace is not installed")


def recover(
    left: Left,  # noqa: F811
    failing: Path,
    *argv: str,
    nth: str = "1+",
) -> subprocess.CompletedProcess[str]:
    """Recover while a directory cannot be listed, from its `nth` call on."""
    stead = "from controller.cli.main import main; main()"
    return subprocess.run(
        [
            str(STRACE), "-f", "-qq", "-o", "/dev/null", "-P", str(failing),
            "-e", "trace=getdents64", "-e", f"inject=getdents64:error=EIO:when={nth}",
            sys.executable, "-c", stead, "vault", "recover", "--objects", str(left.objects),
            "--key", str(left.key), "--output", "json", *argv,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def fullest(left: Left) -> Path:  # noqa: F811
    """The folder of packs that holds most bytes."""
    folders = [folder for folder in left.objects.glob("tn_*/packs/*") if folder.is_dir()]
    return max(folders, key=lambda folder: sum(file.stat().st_size for file in folder.iterdir()))


def test_a_folder_of_packs_that_cannot_be_listed_costs_what_is_in_it(
    left: Left,  # noqa: F811
    tmp_path: Path,
) -> None:
    failing, to = fullest(left), tmp_path / "back"
    ended = recover(left, failing, "--to", str(to))
    assert ended.returncode == 3, ended.stderr
    (done,) = json.loads(ended.stdout)
    assert done["files"] > 0
    assert done["failed"]
    assert (
        f"{failing.relative_to(left.objects)} cannot be listed: input/output error" in ended.stderr
    )


@pytest.mark.parametrize("nth", ["1+", "2+"])
def test_restore_points_that_cannot_be_listed_make_no_older_one_the_newest(
    left: Left,  # noqa: F811
    tmp_path: Path,
    nth: str,
) -> None:
    """With `2+` what was listed before the error counts, and may not be all there is."""
    (failing,) = left.objects.glob("tn_*/points/*")
    ended = recover(left, failing, "--to", str(tmp_path / "back"), nth=nth)
    assert (
        f"{failing.relative_to(left.objects)} cannot be listed: input/output error" in ended.stderr
    )
    assert ended.returncode == (1 if nth == "1+" else 3), ended.stderr
    listed = recover(left, failing, nth=nth)
    assert listed.returncode == (1 if nth == "1+" else 3), listed.stderr
    if nth == "2+":
        named = recover(left, failing, "--to", str(tmp_path / "named"), left.points[0], nth=nth)
        assert named.returncode == 0, named.stderr
