"""Which machine a name meant is remembered, and a controller that says another is found out."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.operator.recognising import (
    Change,
    changes_in,
    check_recognised,
    learnt,
    recognise,
)
from controller.config import OperatorHome
from protocol.errors import Code, SteadError
from protocol.v1.operator_pb2 import Machine

NAMES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123456")).filter(
    lambda names: len(set(names.values())) == len(names)
)


def those(names: Mapping[str, str], tenant: str = "tn") -> list[Machine]:
    return [
        Machine(name=one, machine_id=machine, tenant_id=tenant) for one, machine in names.items()
    ]


@given(NAMES, NAMES)
def test_what_was_learnt_is_no_change_and_all_that_differs_is_one(
    before: dict[str, str], now: dict[str, str]
) -> None:
    known = learnt(before, those(now))
    assert changes_in(known, those(now)) == []
    assert len(set(known.values())) == len(known)
    called = {machine: name for name, machine in before.items()}
    differs = {
        name
        for name, machine in now.items()
        if before.get(name, machine) != machine or called.get(machine, name) != name
    }
    assert {one.name for one in changes_in(before, those(now))} == differs


def test_two_names_that_were_exchanged_are_both_said(tmp_path: Path) -> None:
    swapped = those({"web": "2", "db": "1"})
    assert changes_in({"web": "1", "db": "2"}, swapped) == [
        Change("web", "2", "1", "db"),
        Change("db", "1", "2", "web"),
    ]


def test_nothing_is_signed_for_another_machine_before_somebody_said_that_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = OperatorHome(tmp_path)
    check_recognised(home, those({"web": "1", "db": "2"}))
    check_recognised(home, those({"web": "1"}))
    # The same name is another customer's machine.
    check_recognised(home, those({"web": "9"}, tenant="other"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    lie = those({"web": "2"})
    for _ in range(2):
        check_recognised(home, lie, dry_run=True)
        assert "web is 2, which was called db, and was 1" in capsys.readouterr().err
        with pytest.raises(SteadError, match="stead machine recognise web") as caught:
            check_recognised(home, lie)
        assert caught.value.code is Code.PRECONDITION
    # A name nobody has heard of is no way round it.
    with pytest.raises(SteadError, match="which was called db"):
        check_recognised(home, those({"new": "2"}))
    assert recognise(home, lie) == [Change("web", "2", "1", "db")]
    check_recognised(home, lie)
    check_recognised(home, those({"web": "9"}, tenant="other"))


def test_what_cannot_be_read_is_no_first_time(tmp_path: Path) -> None:
    home = OperatorHome(tmp_path)
    home.names.write_bytes(b"{")
    with pytest.raises(SteadError, match="begin anew"):
        check_recognised(home, those({"web": "1"}))
