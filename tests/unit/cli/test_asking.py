"""Nobody is asked where nobody is there, and a no changes nothing."""

from __future__ import annotations

import io

import click
import pytest

from controller.cli.output.asking import ask
from protocol.errors import InvalidError


class Terminal(io.StringIO):
    """Standard input with a person before it."""

    def isatty(self) -> bool:
        return True


def test_what_comes_through_a_pipe_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(InvalidError, match=r"Go on\? Nobody is there to ask: add --yes"):
        ask("Go on?", yes=False)
    with pytest.raises(InvalidError, match="look with --dry-run, then add --yes"):
        ask("Go on?", yes=False, first="look with --dry-run")
    ask("Go on?", yes=True)


def test_what_is_agreed_to_is_read_before_the_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ask("Go on \x1b[2J?", yes=False, shown=["this", "and that\x1b"])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    lines = (out + err).splitlines()
    assert err.splitlines()[:2] == ["this", "and that\\x1b"]
    assert any("Go on" in line and "[y/N]" in line for line in lines)
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    with pytest.raises(click.Abort):
        ask("Go on?", yes=False)
