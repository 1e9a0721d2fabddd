"""Options that say what a backup leaves out become rules in a fixed order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rich_click as click
from click.testing import CliRunner

from controller.cli.options.choosing import choosing, rules_of
from protocol.selection import BY_DEFAULT, Rules


def said(*arguments: str) -> Rules:
    got: list[Rules] = []

    @click.command()
    @choosing
    def command(**options: Any) -> None:
        got.append(rules_of(options))
        assert not options

    result = CliRunner().invoke(command, arguments)
    if result.exit_code:
        raise ValueError(result.output)
    return got[0]


def test_nothing_said_means_the_defaults() -> None:
    assert said() == BY_DEFAULT


def test_rules_of_files_come_first_and_what_is_taken_back_last(tmp_path: Path) -> None:
    file = tmp_path / "rules"
    file.write_bytes(b"# objects\r\n*.o\r\n\r\n\xff*\n")
    rules = said("--include", "keep.o", "--exclude", "*.tmp", "--exclude-from", str(file))
    assert rules.exclude == (b"*.o", b"\xff*", b"*.tmp", b"!keep.o")


def test_limits_are_bytes_and_seconds() -> None:
    rules = said("--larger-than", "2G", "--smaller-than", "1k", "--older-than", "2d")
    assert (rules.larger_than, rules.smaller_than, rules.older_than_s) == (1 << 31, 1024, 172_800)


@pytest.mark.parametrize("size", ["0", "-1", "2X", "", "1.5G", "99999999T"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        said("--larger-than", size)
