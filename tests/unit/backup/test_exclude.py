"""Rules leave out what git ignores, and looking at fewer of them changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.backup.select.exclude import Exclusion
from agent.backup.select.rule import read_rules
from protocol.errors import InvalidError

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="not run: there is no git")

PLAIN_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
CLASSES = [
    b"alnum", b"alpha", b"blank", b"cntrl", b"digit", b"graph", b"lower", b"print", b"punct",
    b"space", b"upper", b"xdigit",
]  # fmt: skip
SETS_OF_BYTES = [
    *(b"[[:%b:]]" % name for name in CLASSES),
    b"[^[:punct:]]", b"[!-/]", b"[\\]-a]", b"[a\\-z]", b"[]-a]", b"[[:digit:]a-]", b"[[:]a]",
    b"[a-c-e]", b"[--0]", b"[!]-_]", b"[[:alpha:]-~]", b"[\x80-\xff]", b"?", b"*",
]  # fmt: skip

NAMES = st.sampled_from(
    [b"a", b"b", b"ab", b"a b", b"x.o", b".o", b"#a", b"!a", b"a*", b"[a]", b"\xff", b"\xc3\xa9"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
PIECES = st.sampled_from(
    [b"a", b"b", b"ab", b"*", b"?", b"**", b"*.o", b"a*", b"[ab]", b"[!a]", b"\\#a", b"\\!a",
     b"\xff", b"a b", b"*b*", b"***", b"a**", b"**b", b"a**b", b"?**", b"\\a", b"\\*", b"a\\*",
     b"[[]a]", b"[]a]", b"[^]a]", b"[a-c]b", b"[c-a]", b"[a-]", b"[!-~]", b"[\\a]", b"[a", b"[!",
     b"[[:alpha:]]", b"[[:alpha:]-z]", b"[[:nonsense:]]", b"[[:alpha]", b"*[ab]*?*", b"a[/]b", b""]
)  # fmt: skip
RULES = st.builds(
    lambda head, pieces, joint, tail: head + joint.join(pieces) + tail,
    st.sampled_from([b"", b"", b"", b"/", b"!", b"!/"]),
    st.lists(PIECES, min_size=1, max_size=3),
    st.sampled_from([b"/", b"/", b"/", b"\\/"]),
    st.sampled_from([b"", b"", b"", b"/", b"/**", b"/**/", b" ", b"\\ ", b"  ", b"\r"]),
).filter(lambda rule: not rule.rstrip(b"/ \r").endswith(b"\\"))


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
    """What git says of files and directories that are there."""
    (repository / ".gitignore").write_bytes(b"".join(rule + b"\n" for rule in rules))
    done = subprocess.run(
        ["git", "-C", repository, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"".join(b"./%b\0" % path for path in paths),  # a `:` alone is no path
        capture_output=True,
        check=False,
        env={**os.environ, **PLAIN_GIT},
    )
    assert done.returncode in (0, 1), done.stderr
    return {path.removeprefix(b"./") for path in done.stdout.split(b"\0") if path}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


TREES = st.lists(PATHS, min_size=1, max_size=40)
SETS = st.lists(RULES, min_size=1, max_size=4)


@needs_git
@settings(max_examples=25, derandomize=True)
@given(rules=SETS, paths=TREES)
@example(rules=[b"a/**/"], paths=[b"a/b/ab", b"a/a b"])
@example(rules=[b"a", b"!*"], paths=[b"a/b/ab", b"b/a", b"ab"])
@example(rules=[b"a/**/b/**/a", b"!/a/**/?/b/**/a"], paths=[b"a/b/b/a", b"a/a/b/b/ab/a", b"a/b/a"])
@example(rules=[b"**/a/b*/**/b/**"], paths=[b"a/a/b/a/b/b", b"a/ba/b", b"b/a/b/a/b/ba/b/a"])
@example(rules=[b"a**/b"], paths=[b"ab/b/ab", b"a/b", b"ab/ab/b"])
@example(rules=[b"b/a**", b"!b/ab/**"], paths=[b"b/ab/b", b"b/a/b"])
@example(rules=[b"b/*a**b", b"b/a/?**/b"], paths=[b"b/ab/b", b"b/a/ab/ab/b", b"b/a/ab/b"])
def test_what_git_ignores_is_left_out_and_nothing_else(
    repository: Path, rules: list[bytes], paths: list[bytes]
) -> None:
    compare_with_git(repository, rules, paths)


@needs_git
@pytest.mark.full
@pytest.mark.timeout(600)
@settings(max_examples=3000, print_blob=True)
@given(rules=SETS, paths=TREES)
def test_what_git_ignores_is_left_out_in_many_trees(
    repository: Path, rules: list[bytes], paths: list[bytes]
) -> None:
    compare_with_git(repository, rules, paths)


def compare_with_git(repository: Path, rules: list[bytes], paths: list[bytes]) -> None:
    folders = {path[:at] for path in paths for at, one in enumerate(path) if one == ord("/")}
    files = set(paths) - folders
    for left in repository.iterdir():
        if left.name != ".git":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    place = os.fsencode(repository) + b"/"
    for folder in sorted(folders):
        Path(os.fsdecode(place + folder)).mkdir()
    for file in files:
        Path(os.fsdecode(place + file)).touch()
    expected = ignored_by_git(repository, rules, [*files, *folders])
    for path in files | folders:
        told = is_left_out(rules, path, is_directory=path in folders)
        assert told == (path in expected), path


@needs_git
def test_a_set_fits_the_bytes_that_git_fits(repository: Path) -> None:
    paths = [b"%c" % code for code in range(1, 256) if code not in b"./"]
    for one in SETS_OF_BYTES:
        compare_with_git(repository, [one], paths)


def test_a_rule_of_many_stars_is_soon_done_with_a_long_name() -> None:
    # In every way there is, this would take longer than the universe is old.
    assert not is_left_out([b"*a" * 60 + b"*b"], b"a" * 250, is_directory=False)
    assert is_left_out([b"*a" * 60 + b"*b"], b"a" * 250 + b"b", is_directory=False)
    assert not is_left_out([b"/x/" + b"*a" * 60 + b"*b"], b"x/" + b"a" * 250, is_directory=False)


def test_a_rule_of_many_double_stars_is_soon_done_with_a_deep_path() -> None:
    deep = b"a/" * 800
    rule = b"/a/" + b"**/a*/" * 30 + b"**/b"
    assert not is_left_out([rule], deep + b"c", is_directory=False)
    assert is_left_out([rule], deep + b"b", is_directory=False)


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


@pytest.mark.parametrize("line", [b"a\\", b"a\\/", b"a\nb", b"a\0", b"x" * 5000])
def test_what_is_no_rule_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidError):
        read_rules([line])


def test_a_name_that_ends_in_a_newline_is_another() -> None:
    assert is_left_out([b"foo"], b"foo", is_directory=False)
    assert not is_left_out([b"foo"], b"foo\n", is_directory=False)
