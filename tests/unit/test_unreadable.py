"""Bytes that are no text are as unreadable as those that are no JSON, everywhere."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.config import AgentHome
from agent.link.rehome import load_rehoming
from protocol.errors import UNREADABLE, InvalidError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("data", [b"{", b'{"a":"\xff"}', b"[" * 100_000, b"\xff", b""])
def test_what_cannot_be_read_is_caught_whatever_is_wrong_with_it(data: bytes) -> None:
    for read in (msgspec.json.decode, msgspec.msgpack.decode):
        with pytest.raises(UNREADABLE):
            read(data, type=dict[str, str])


def test_a_state_file_with_one_bad_byte_is_named(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.rehoming.write_bytes(b'{"link_address":"\xff"}')
    with pytest.raises(InvalidError, match="rehoming"):
        load_rehoming(home)


def test_nobody_catches_a_part_of_it() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("agent", "controller", "protocol", "recovery")
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in path.read_text().splitlines()
        if "msgspec.DecodeError" in line and "ValueError" not in line and "UNREADABLE" not in line
    ]
    assert found == []
