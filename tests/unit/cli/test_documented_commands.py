"""Every command that the documents show exists, with each of its options."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent.cli import cli as agent_program
from controller.cli.main import COMMANDS, program
from controller.cli.vault.drilling import RunByDefault

TOP = Path(__file__).parents[3]
DOCUMENTS = (TOP / "README.md", *sorted((TOP / "docs").rglob("*.md")))
INLINE = re.compile(r"`(stead(?:-agent)? [^`\n]+)`")
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"stead(-agent)? [a-z-]")
END = re.compile(r"\s#|\s&&?(?:\s|$)|\s\||\s2?>|…|;")
"""Where the command ends and the shell, a comment or an ellipsis begins."""


def documented(text: str) -> Iterator[list[str]]:
    """The commands of a document, split into words."""
    indented = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    fenced = [line for block in FENCED.findall(text) for line in block.splitlines()]
    lines = [line.removeprefix("$ ").removesuffix("\\") for line in (*indented, *fenced)]
    shown = [line for line in lines if SHOWN.match(line)]
    for one in dict.fromkeys((*INLINE.findall(text), *shown)):
        yield shlex.split(END.split(one)[0])


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command; None when it can be typed so."""
    command: click.Command = program if words[0] == "stead" else agent_program
    rest = words[1:]
    while isinstance(command, click.Group):
        while rest and rest[0].startswith("-"):
            takes_value = any(
                rest[0] in one.opts and not getattr(one, "is_flag", False) for one in command.params
            )
            rest = rest[2:] if takes_value else rest[1:]
        if not rest or rest[0].isupper():
            return None
        if isinstance(command, RunByDefault) and rest[0] not in command.commands:
            rest = ["run", *rest]
        found = _child(command, rest[0])
        if found is None:
            return f"{rest[0]!r} is no command"
        command, rest = found, rest[1:]
    known = {
        "--help",
        *(name for one in command.params for name in (*one.opts, *one.secondary_opts)),
    }
    for word in rest:
        if word == "--":
            break
        if word.startswith("--") and word.split("=")[0] not in known:
            return f"{word!r} is no option"
    return None


def _child(group: click.Group, name: str) -> click.Command | None:
    if group is program:
        known = name in COMMANDS
        module = f"controller.cli.commands.{name.replace('-', '_')}"
        return importlib.import_module(module).command if known else None
    return group.get_command(click.Context(group), name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_command_of_a_document_can_be_typed(document: Path) -> None:
    problems = {
        shlex.join(words): problem
        for words in documented(document.read_text(encoding="utf-8"))
        if (problem := problem_of(words)) is not None
    }
    assert not problems


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("stead backup run all --dry-run", None),
        ("stead --home DIR machine ls", None),
        ("stead-agent status --output json", None),
        ("stead backup rum all", "'rum' is no command"),
        ("stead machine ls --colour", "'--colour' is no option"),
    ],
)
def test_what_cannot_be_typed_is_found(words: str, problem: str | None) -> None:
    assert problem_of(shlex.split(words)) == problem


SOURCES = sorted(
    path
    for part in ("agent", "controller", "protocol", "recovery")
    for path in (TOP / part).rglob("*.py")
    if "_pb2" not in path.name
)


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts in a program; what is put into one stands as the word VALUE."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "VALUE"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            yield str(node.value)


def test_every_command_that_a_program_names_can_be_typed() -> None:
    problems = {}
    for source in SOURCES:
        for text in texts(ast.parse(source.read_text(encoding="utf-8"))):
            for shown in INLINE.findall(" ".join(text.split())):
                words = shlex.split(END.split(shown)[0])
                if (problem := problem_of(words)) is not None:
                    problems[f"{source.relative_to(TOP)}: {shown}"] = problem
    assert not problems
