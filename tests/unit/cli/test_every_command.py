"""Every command with what it can do nothing with: one line, the next step, a documented code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from controller.cli import main
from controller.cli.app import App
from tests.fakes.new_database import new_installation
from tests.fakes.typed import typed
from tests.unit.cli.tree import Typed, commands

EVERY = list(commands())
GUIDE = Path(__file__).parents[3] / "docs/guide/command-line.md"

WITHOUT_A_CONTROLLER = {
    ("audit", "compare"),
    ("controller", "init"),
    ("controller", "serve"),
    ("controller", "upgrade-db"),
    ("operator", "accept"),
    ("operator", "certify"),
    ("operator", "key", "protect"),
    ("operator", "key", "show"),
    ("operator", "key", "unprotect"),
    ("operator", "renew"),
    ("operator", "request"),
    ("policy", "apply"),
    ("vault", "check"),
    ("vault", "rebuild"),
    ("vault", "recover"),
}
"""These act on files here, or look at files before they ask a controller."""

every_command = pytest.mark.parametrize("one", EVERY, ids=lambda one: "-".join(one.path))


def documented_codes() -> set[int]:
    rows = re.findall(r"^\| (\d+) \| ", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    return {int(row) for row in rows}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the files that the words of `tree` name; none of them is any good."""
    (tmp_path / "a-file").write_bytes(b"\xff\x00 no such thing")
    (tmp_path / "a-folder").mkdir()
    return tmp_path


def refused(place: Path, *words: str, as_json: bool = False) -> tuple[int, str]:
    """Type it; the code, and the one thing that was said: nothing but an error."""
    done = typed(["--home", str(place / "home"), *words], cwd=place)
    assert done.returncode in documented_codes() - {0}, done
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    if as_json:
        said = json.loads(lines[-1])
        assert said.keys() == {"error", "message", "exit_code"}
        assert said["exit_code"] == done.returncode
        return done.returncode, f"{said['error']}: {said['message']}"
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return done.returncode, lines[-1]


def with_profile(place: Path) -> None:
    """A profile of an installation whose controller does not run."""
    made = new_installation(place / "home")
    made.operator.settings.write_text('address = "127.0.0.1:9"\n')


@every_command
def test_its_help_has_an_example_of_itself(one: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*one.path, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Example: stead {' '.join(one.path)}" in said


@every_command
def test_what_it_does_not_know_is_named_with_where_to_look(one: Typed, place: Path) -> None:
    if one.path == ("machine", "tag"):
        return  # a tag to take away is written with a dash
    code, said = refused(place, *one.words("--no-such-option"))
    assert (code, "No such option" in said) == (2, True)
    assert f"see `stead {' '.join(one.path)} --help`" in said
    code, said = refused(place, *one.words("--no-such-option", "-ojson"), as_json=True)
    assert (code, said.startswith("usage: No such option")) == (2, True)


@every_command
def test_without_a_profile_it_says_whence_to_get_one(one: Typed, place: Path) -> None:
    if one.path in {("controller", "init"), ("operator", "request")}:
        return
    code, said = refused(place, *one.words(json=True), as_json=one.has_output)
    assert code in {1, 2}
    if one.path not in WITHOUT_A_CONTROLLER:
        assert "(`stead operator add`)" in said
    elif code == 1:
        assert "with --home" in said


@every_command
def test_without_a_controller_it_exits_6_and_asks_for_one(one: Typed, place: Path) -> None:
    if one.path in WITHOUT_A_CONTROLLER:
        return
    with_profile(place)
    code, said = refused(place, *one.words(json=True), as_json=one.has_output)
    assert (code, "is the controller running" in said) == (6, True)
    assert said.startswith("unavailable: " if one.has_output else "error: ")


@every_command
def test_ctrl_c_ends_it_with_a_word(
    one: Typed, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(app: App) -> None:
        raise KeyboardInterrupt

    if one.path in WITHOUT_A_CONTROLLER:
        return
    with_profile(place)
    monkeypatch.setattr(App, "connection", property(interrupted))
    assert refused(place, *one.words()) == (130, "error: interrupted")


@every_command
def test_a_damaged_profile_is_named(one: Typed, place: Path) -> None:
    if one.path in WITHOUT_A_CONTROLLER:
        return
    with_profile(place)
    certificate = place / "home/operator/operator.pem"
    certificate.unlink()
    certificate.mkdir()
    code, said = refused(place, *one.words())
    assert code in {1, 2}
    assert str(certificate) in said


def test_a_file_that_the_system_refuses_is_named(place: Path) -> None:
    with_profile(place)
    for one in ("a-folder", "not-there", "a-file/below"):
        code, said = refused(place, "policy", "apply", one)
        assert (code, f"'{one}'" in said) == (2, True), said
