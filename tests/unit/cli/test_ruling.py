"""What the person is told of orders that others have still to sign."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.cli.operator.ruling import say_awaiting
from protocol.errors import Code, SteadError
from protocol.v1.job_pb2 import Job, Task


def job(name: str, state: str, missing: int = 0) -> Job:
    return Job(job_id=name, tasks=[Task(state=state)], signatures_missing=missing)


def test_every_order_that_awaits_a_signature_is_named_and_those_that_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [job("or_a", "awaiting", 1), job("or_b", "queued"), job("or_c", "awaiting", 2)]
    with pytest.raises(SteadError) as caught:
        say_awaiting(jobs, "table", waits=False)
    assert caught.value.code is Code.NEEDS_APPROVAL
    assert "or_c awaits the signature of 2 other operators" in str(caught.value)
    said = capsys.readouterr().err
    assert "stead job approve or_a" in said
    assert "or_b goes on" in said


def test_nothing_is_said_of_orders_that_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    say_awaiting([job("or_a", "queued"), job("or_b", "waiting")], "json", waits=False)
    assert capsys.readouterr() == ("", "")
    say_awaiting([job("or_a", "awaiting", 1)], "json", waits=True)
    assert "another operator" in capsys.readouterr().err


def test_scripts_get_the_names_of_what_awaits_a_signature(capsysbinary: Any) -> None:
    jobs = [job("or_a", "awaiting", 1), job("or_b", "queued")]
    with pytest.raises(SteadError):
        say_awaiting(jobs, "json", waits=False)
    assert json.loads(capsysbinary.readouterr().out) == [
        {"job": "or_a", "machines": 1, "awaiting": True, "signatures_missing": 1},
        {"job": "or_b", "machines": 1, "awaiting": False, "signatures_missing": 0},
    ]
