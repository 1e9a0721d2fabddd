"""An answer to a comparison is bounded, and rules are taken for known only when they are."""

from __future__ import annotations

import random

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.actions import compare
from agent.actions.compare import Answer, result_of, rules_by_hash
from agent.backup.restore.live import Unseen
from agent.backup.run import EVERYTHING
from agent.backup.select.commands import check_commands
from agent.backup.select.set_hash import set_hash
from agent.backup.skipped import Skipped
from protocol.action import RunBackup
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.outcome import OutcomeState
from protocol.selection import BY_DEFAULT, NO_COMMANDS, Commands, CommandStream, Rules
from protocol.vault.comparison import (
    MAX_PAGE_BYTES,
    Difference,
    Page,
    Terms,
    open_pages,
    seal_page,
    side_of,
)
from protocol.vault.entry import Entry, Owner
from tests.unit.backup.machine import WHO

KEY = X25519PrivateKey.generate()
NAMES = {"machine": "mc_1", "point": "rp_1"}
SIDE = side_of(Entry(b"x", 0o100644, Owner(0, 0), 1, 2))


def filled(count: int, parent: bytes = b"etc") -> Answer:
    terms = Terms((b"/etc",), KEY.public_key().public_bytes_raw())
    answer = Answer(terms, NAMES["machine"], NAMES["point"])
    for number in range(count):
        answer.add(Difference(parent, b"%d" % number, (), SIDE, None))
    answer.finish(Unseen(b"/"))
    return answer


def test_a_long_answer_comes_in_pages_and_in_order() -> None:
    pages = list(open_pages(KEY, filled(10_000).pages, **NAMES))
    assert len(pages) == 3
    names = [one.name for page in pages for one in page.differences]
    assert names == [b"%d" % number for number in range(10_000)]


def test_pages_of_long_paths_can_be_read() -> None:
    parent = b"/".join(random.Random(5).randbytes(200).replace(b"/", b"_") for _ in range(20))
    unseen = Unseen(b"/")
    unseen.kept += [Skipped(parent * 10, "permission denied")] * 1_000
    answer = filled(4_000, parent)
    pages = list(open_pages(KEY, answer.pages, **NAMES))
    assert sum(len(page.differences) for page in pages) == 4_000
    assert len(pages) > 10
    alone = Answer(answer.terms, NAMES["machine"], NAMES["point"])
    alone.finish(unseen)
    (page,) = open_pages(KEY, alone.pages, **NAMES)
    assert 0 < len(page.skipped) < 200


def test_a_page_that_would_fill_the_memory_is_refused() -> None:
    page = Page((), ((bytes(MAX_PAGE_BYTES), "too long"),), is_last=True)
    sealed = seal_page(page, 0, filled(0).terms, **NAMES)
    assert len(sealed) < 1_000
    with pytest.raises(InvalidError, match="larger than any machine makes one"):
        list(open_pages(KEY, [sealed], **NAMES))


def test_what_does_not_fit_is_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ANSWER_BYTES", 1000)
    answer = filled(10_000)
    pages = list(open_pages(KEY, answer.pages, **NAMES))
    assert sum(len(page.differences) for page in pages) == 10_000 - answer.untold == 4_000
    result = result_of(answer, Unseen(b"/"), rules_known=True)
    assert result.state is OutcomeState.PARTIAL
    assert "6000 are not named" in result.message
    assert msgspec.json.decode(result.result)["removed"] == 10_000


def test_rules_are_known_by_their_hash_alone() -> None:
    paths = (b"etc", b"srv")
    streams = Commands((CommandStream(b"/streams/db", ("dump",)),))
    by_set = RunBackup((b"/etc",), Rules(exclude=(b"*.iso",)), commands=streams)

    def known(rules: Rules, commands: Commands = NO_COMMANDS) -> Rules | None:
        made = set_hash(paths, rules, check_commands(commands, ()), WHO.secret)
        return rules_by_hash(made, paths, WHO.secret, lambda: by_set)

    for rules, commands in (
        (by_set.rules, streams),
        (BY_DEFAULT, NO_COMMANDS),
        (EVERYTHING, NO_COMMANDS),
    ):
        assert known(rules, commands) == rules
    assert known(by_set.rules) is None
    assert known(Rules(exclude=(b"*.tmp",))) is None


def test_without_a_set_the_usual_rules_are_known() -> None:
    def none() -> RunBackup:
        raise NotFoundError("no set")

    def broken() -> RunBackup:
        raise SteadError("another", code=Code.BAD_SIGNATURE)

    made = set_hash((b"etc",), BY_DEFAULT, {}, WHO.secret)
    assert rules_by_hash(made, (b"etc",), WHO.secret, none) == BY_DEFAULT
    with pytest.raises(SteadError, match="another"):
        rules_by_hash(made, (b"etc",), WHO.secret, broken)
