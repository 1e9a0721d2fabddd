"""The names of actions and settings that the guide lists are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import Settings as AgentSettings
from controller.config import Settings as ControllerSettings
from protocol.action_class import CLASSES

GUIDE = Path(__file__).parents[2] / "docs/guide"
NAME = re.compile(r"`([a-z_]+)\b[^`]*`")


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the table under such a head."""
    text = (GUIDE / document).read_text(encoding="utf-8")
    table = text.partition(f"{heading}\n")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[1:]]


def test_every_action_is_listed_in_its_class() -> None:
    listed = {
        name: row[0]
        for row in rows("approval.md", "| class | action | ordered by |")
        for name in NAME.findall(row[1])
    }
    assert listed == {name: kind.value for name, kind in CLASSES.items()}


@pytest.mark.parametrize(
    ("document", "settings"),
    [("install.md", AgentSettings), ("controller.md", ControllerSettings)],
)
def test_every_setting_is_listed(document: str, settings: type) -> None:
    listed = [
        name for row in rows(document, "| setting | means |") for name in NAME.findall(row[0])
    ]
    assert sorted(listed) == sorted(settings.__struct_fields__)  # type: ignore[attr-defined]
