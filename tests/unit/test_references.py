"""What documents and programs refer to is there: other documents, their headings, modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PARTS = ("agent", "controller", "protocol", "recovery")
DOCUMENTS = [TOP / "README.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").rglob("*.md"))]
PROGRAMS = [
    path
    for part in (*PARTS, "tests", "bench", "demo")
    for path in sorted((TOP / part).rglob("*.py"))
    if "_pb2" not in path.name
]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
FILES = {"agent.toml", "agent.log", "agent.log.early"}
"""What looks like a module and is a file."""
MODULE = re.compile(rf"`((?:{'|'.join(PARTS)})(?:\.[A-Za-z_][A-Za-z_0-9]*)+)`")


def anchors(document: Path) -> set[str]:
    """How a heading is named in a link: in lower case, with dashes, without other signs."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or one that a module has."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        place = TOP.joinpath(*words[:count])
        if place.with_suffix(".py").is_file():
            text = place.with_suffix(".py").read_text(encoding="utf-8")
            return all(re.search(rf"\b{word}\b", text) for word in words[count:])
        if place.is_dir():
            return count == len(words)
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    lost = []
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        led = (document.parent / target).resolve() if target else document
        if not led.exists() or (anchor and led.suffix == ".md" and anchor not in anchors(led)):
            lost.append(f"{target}#{anchor}" if anchor else target)
    assert lost == []


def test_the_modules_that_are_named_are_there() -> None:
    lost = {
        f"{path.relative_to(TOP)}: {name}"
        for path in (*DOCUMENTS, *PROGRAMS)
        for name in MODULE.findall(path.read_text(encoding="utf-8"))
        if name not in FILES and not is_there(name)
    }
    assert lost == set()


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("controller.db.schema", True),
        ("controller.db.schema.metadata", True),
        ("controller.db", True),
        ("controller.db.no_such_module", False),
        ("controller.db.schema.no_such_table", False),
        ("protocol.nothing", False),
    ],
)
def test_what_is_not_there_is_found(name: str, there: bool) -> None:
    assert is_there(name) is there
