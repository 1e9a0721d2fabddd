"""The heads of audit logs that an operator has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.audit.chain import Head
from controller.cli.heads import SeenHeads
from protocol.errors import InvalidError

TENANT = "tn_" + "0" * 26


def test_a_head_is_read_back_and_replaced_by_a_later_one(tmp_path: Path) -> None:
    seen = SeenHeads(tmp_path / "audit")
    assert seen.load(TENANT) is None
    assert seen.logs() == set()
    for head in (Head(1, b"a" * 32), Head(2, b"b" * 32)):
        seen.save(TENANT, head, None)
        seen.save("", head, None)
        assert seen.load(TENANT) == seen.load("") == head
    assert seen.logs() == {"", TENANT}
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "audit").iterdir()} == {0}


@pytest.mark.parametrize("content", ["", "1", "1:ab", "x" * 70])
def test_a_damaged_head_is_named_and_not_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / f"{TENANT}.head").write_text(content)
    with pytest.raises(InvalidError, match=f"{TENANT}.head"):
        SeenHeads(tmp_path).load(TENANT)


@pytest.mark.parametrize("log", ["../../operator", "tn_", "installation", "tn_" + "/" * 26])
def test_a_controller_chooses_no_file(tmp_path: Path, log: str) -> None:
    with pytest.raises(InvalidError):
        SeenHeads(tmp_path).save(log, Head(1, b"a" * 32), None)
    assert not list(tmp_path.parent.glob("*.head"))
