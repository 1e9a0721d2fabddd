"""Whatever a controller answers, `stead` shows it or says in words what is wrong with it.

A real controller answers, and of its answers one field at a time says what nobody means: so
may one that was taken over, and one of another release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from controller.rpc.interceptor import Gate
from tests.fakes.typed import typed
from tests.integration.conftest import Installation
from tests.integration.extremes import changed
from tests.integration.two_tenants import Side, furnish
from tests.unit.cli.test_every_command import documented_codes
from tests.unit.cli.tree import commands

LISTS = ("machine ls", "tenant ls", "token ls", "controller status")
SHOWS = (
    *("machine show", "tenant show", "tenant key ls", "operator ls", "snapshot show"),
    *("inventory show", "inventory history", "job ls", "job show", "job watch"),
    *("order ls", "order show", "policy show", "policy history", "backup drill ls"),
    *("backup keep", "backup ls", "vault scrub", "vault stats", "audit ls", "audit verify"),
)
TYPED = {" ".join(one.path): one for one in commands()}


class Answers:
    """What a controller answers, by method; one answer may be another than it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.good: dict[str, Message] = {}
        self.instead: tuple[str, Message] | None = None
        intercept = Gate.intercept_service

        async def intercepted(
            gate: Gate, continuation: Callable[[Any], Awaitable[Any]], details: Any
        ) -> Any:
            handler = await intercept(gate, continuation, details)
            method = str(details.method)
            return handler and handler._replace(
                response_serializer=lambda answer: self._sent(method, answer)
            )

        monkeypatch.setattr(Gate, "intercept_service", intercepted)

    def _sent(self, method: str, answer: Message) -> bytes:
        if self.instead is not None and self.instead[0] == method:
            return self.instead[1].SerializeToString()
        self.good.setdefault(method, deepcopy(answer))
        return answer.SerializeToString()


async def looked(
    installation: Installation, command: str, answers: Answers, side: Side, place: Path
) -> list[str]:
    """Type a command for every change of every answer that it gets; what was not as it should."""
    # Tables, which are slow to print, are for what lists.
    words = TYPED[command].words(
        json=command in SHOWS,
        machine=side.machine,
        selector="all",
        tenant=side.word,
        job=side.job,
        order=side.standing,
    )
    home = str(installation.made.operator.path.parent)
    argv = ["--home", home, "--controller", installation.link_address, *words]
    answers.good.clear()
    answers.instead = None
    await asyncio.to_thread(typed, argv, cwd=place)
    wrong = []
    for method, good in list(answers.good.items()):
        for change, answer in changed(good):
            answers.instead = method, answer
            said = f"{command}: {method.rpartition('/')[2]} {change}"
            try:
                done = await asyncio.to_thread(typed, argv, cwd=place)
            except Exception as error:
                wrong.append(f"{said}: {error!r:.200}")
            else:
                if done.returncode not in documented_codes():
                    wrong.append(f"{said}: ended with {done.returncode}")
    assert answers.good, f"{command} asked nothing"
    return wrong


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "looks", [LISTS, pytest.param(SHOWS, marks=pytest.mark.full)], ids=["lists", "shows"]
)
async def test_no_extreme_value_of_an_answer_ends_a_command_without_a_word(
    installation: Installation,
    looks: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    side = (await furnish(installation, "ours")).to_operators
    answers = Answers(monkeypatch)
    wrong = [
        one
        for command in looks
        for one in await looked(installation, command, answers, side, tmp_path)
    ]
    assert wrong == []
