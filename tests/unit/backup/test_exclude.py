"""Rules leave out what git ignores, and looking at fewer of them changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backup.exclude import Exclusion, read_rules
from protocol.errors import InvalidError

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="not run: there is no git")

NAMES = st.sampled_from(
    [b"a", b"b", b"ab", b"a b", b"x.o", b".o", b"#a", b"!a", b"a*", b"[a]", b"\xff", b"\xc3\xa9"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
PIECES = st.sampled_from(
    [b"a", b"b", b"ab", b"*", b"?", b"**", b"*.o", b"a*", b"[ab]", b"[!a]", b"\\#a", b"\\!a",
     b"\xff", b"a b", b"*b*"]
)  # fmt: skip
RULES = st.builds(
    lambda head, pieces, tail: head + b"/".join(pieces) + tail,
    st.sampled_from([b"", b"", b"/", b"!", b"!/"]),
    st.lists(PIECES, min_size=1, max_size=3),
    st.sampled_from([b"", b"", b"/"]),
)


def is_left_out(rules: Sequence[bytes], path: bytes, *, is_directory: bool) -> bool:
    """As a walk asks: from the top, and nothing below what is left out."""
    place = Exclusion(read_rules(rules)).top
    names = path.split(b"/")
    for depth, name in enumerate(names):
        whole = b"/".join(names[: depth + 1])
        directory = is_directory or depth < len(names) - 1
        looked = place.look is not None and place.look.match(name)
        if looked and place.rule_of(whole, is_directory=directory):
            return True
        place = place.below(name)
    return False


def ignored_by_git(repository: Path, rules: Sequence[bytes], paths: Sequence[bytes]) -> set[bytes]:
    (repository / ".gitignore").write_bytes(b"".join(rule + b"\n" for rule in rules))
    done = subprocess.run(
        ["git", "-C", repository, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"".join(path + b"\0" for path in paths),
        capture_output=True,
        check=False,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
    )
    assert done.returncode in (0, 1), done.stderr
    return {path.rstrip(b"/") for path in done.stdout.split(b"\0") if path}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


TREES = st.lists(PATHS, min_size=1, max_size=40)
SETS = st.lists(RULES, min_size=1, max_size=4)


@needs_git
@settings(max_examples=12, deadline=None, derandomize=True)
@given(rules=SETS, paths=TREES)
def test_what_git_ignores_is_left_out_and_nothing_else(
    repository: Path, rules: list[bytes], paths: list[bytes]
) -> None:
    compare_with_git(repository, rules, paths)


@needs_git
@pytest.mark.full
@settings(max_examples=600, deadline=None)
@given(rules=SETS, paths=TREES)
def test_what_git_ignores_is_left_out_in_many_trees(
    repository: Path, rules: list[bytes], paths: list[bytes]
) -> None:
    compare_with_git(repository, rules, paths)


def compare_with_git(repository: Path, rules: list[bytes], paths: list[bytes]) -> None:
    unlike = {b"/".join(path.split(b"/")[:n]) for path in paths for n in range(1, 4)}
    files = [path for path in paths if path not in unlike or path.count(b"/") >= 3]
    folders = [path for path in paths if path not in files]
    expected = ignored_by_git(repository, rules, [*files, *(path + b"/" for path in folders)])
    for path in files:
        assert is_left_out(rules, path, is_directory=False) == (path in expected), path
    for path in folders:
        assert is_left_out(rules, path, is_directory=True) == (path in expected), path


@given(rules=st.lists(RULES, max_size=6), path=PATHS, directory=st.booleans())
def test_the_first_look_never_loses_what_a_rule_fits(
    rules: list[bytes], path: bytes, directory: bool
) -> None:
    read = read_rules(rules)
    names = path.split(b"/")
    expected = False
    for depth in range(len(names)):
        whole = b"/".join(names[: depth + 1])
        fit = [r for r in read if r.fits(whole, is_directory=directory or depth < len(names) - 1)]
        if fit and not fit[-1].takes_back:
            expected = True
            break
    assert is_left_out(rules, path, is_directory=directory) == expected


def test_rules_about_other_places_cost_nothing_here() -> None:
    top = Exclusion(read_rules([b"/home/*/.cache/*", b"/proc/*"])).top
    assert top.look is None
    assert top.below(b"home").look is None
    assert top.below(b"home").below(b"ann").below(b".cache").look is not None
    assert top.below(b"srv").below(b"home").below(b"ann").below(b".cache").look is None
    assert top.below(b"srv") is top.below(b"usr").below(b"lib")


@pytest.mark.parametrize("line", [b"a\\", b"a\nb", b"a\0", b"x" * 5000])
def test_what_is_no_rule_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidError):
        read_rules([line])


def test_a_name_that_ends_in_a_newline_is_another() -> None:
    assert is_left_out([b"foo"], b"foo", is_directory=False)
    assert not is_left_out([b"foo"], b"foo\n", is_directory=False)
