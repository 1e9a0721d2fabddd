"""Where a machine was told to go: kept, guarded against old orders, believed of nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from agent.config import AgentHome, Settings
from agent.link.rehome import Rehoming, keep_rehoming, load_rehoming, where_to
from controller.cli.commands.rehome import parse_addresses
from protocol.errors import Code, SteadError

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SETTINGS = Settings("old:1", "old:2")


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    return AgentHome(tmp_path)


def test_an_order_that_is_older_than_the_last_one_is_refused(home: AgentHome) -> None:
    keep_rehoming(home, "new:1", "new:2", NOW)
    keep_rehoming(home, "new:1", "new:2", NOW)
    with pytest.raises(SteadError) as caught:
        keep_rehoming(home, "evil:1", "evil:2", NOW - timedelta(seconds=1))
    assert caught.value.code is Code.REPLAYED
    kept = load_rehoming(home)
    assert kept is not None
    assert kept.link_address == "new:1"


NEVER_NAMES = ["new..example.org:7443", ".example.org:7443", f"{'a' * 64}.org:7443", "a b:7443"]
"""No name server can be asked for them, and the system's own error is none of the network's."""


@pytest.mark.parametrize("address", ["", "new", "new:0", ":7443", "new:70000", *NEVER_NAMES])
def test_what_is_no_address_is_not_kept(home: AgentHome, address: str) -> None:
    with pytest.raises(SteadError):
        keep_rehoming(home, address, "new:2", NOW)
    with pytest.raises(SteadError):
        keep_rehoming(home, "new:1", address, NOW)
    with pytest.raises(SteadError):
        parse_addresses(f"{address},new:2")
    assert load_rehoming(home) is None


def test_where_nobody_answers_or_nothing_can_be_read_the_old_address_stays(
    home: AgentHome,
) -> None:
    assert where_to(home, SETTINGS) is None
    keep_rehoming(home, "127.0.0.1:1", "127.0.0.1:1", NOW)
    assert where_to(home, SETTINGS) is None
    home.rehoming.write_bytes(b"{")
    assert where_to(home, SETTINGS) is None
    with pytest.raises(SteadError, match="delete it"):
        load_rehoming(home)


@pytest.mark.parametrize("address", NEVER_NAMES)
def test_an_address_that_is_no_name_and_was_kept_once_keeps_nobody_from_the_old_one(
    home: AgentHome, address: str
) -> None:
    home.rehoming.write_bytes(msgspec.json.encode(Rehoming(address, address, NOW)))
    assert where_to(home, SETTINGS) is None
