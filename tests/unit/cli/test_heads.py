"""The heads of audit logs that an operator has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.audit.chain import Head
from controller.cli.audit.heads import SeenHeads
from protocol.errors import InvalidError
from tests.unit.audit.signing import Signers, checkpoint, entry

TENANT = "tn_" + "0" * 26
SIGNERS = Signers.new()


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


def test_a_checkpoint_is_kept_with_its_head_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    seen, five = SeenHeads(tmp_path), checkpoint([entry(number) for number in range(5)])
    head = Head(7, b"b" * 32)
    seen.save(TENANT, head, SIGNERS.sign(five))
    assert seen.heads(TENANT) == {head, Head(5, five.head)}
    seen.save(TENANT, head, None)
    assert seen.heads(TENANT) == {head, Head(5, five.head)}
    first = seen.keep_evidence(TENANT, b"one")
    assert seen.keep_evidence(TENANT, b"two") == first
    assert first.read_bytes() == b"one"
    first.unlink()
    assert [file.name for file, _ in seen.signed()] == [f"{TENANT}.checkpoint"]
    (tmp_path / f"{TENANT}.checkpoint").write_bytes(b"nothing")
    for look in (seen.signed, lambda: seen.heads(TENANT)):
        with pytest.raises(InvalidError, match=f"{TENANT}.checkpoint"):
            look()


@pytest.mark.parametrize("log", ["../../operator", "tn_", "installation", "tn_" + "/" * 26])
def test_a_controller_chooses_no_file(tmp_path: Path, log: str) -> None:
    with pytest.raises(InvalidError):
        SeenHeads(tmp_path).save(log, Head(1, b"a" * 32), None)
    assert not list(tmp_path.parent.glob("*.head"))
