"""An answer to a comparison is bounded, and rules are taken for known only when they are."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.actions import compare
from agent.actions.compare import Answer, result_of, rules_by_hash
from agent.backup.commands import check_commands
from agent.backup.live import Unseen
from agent.backup.run import EVERYTHING
from agent.backup.set_hash import set_hash
from protocol.action import RunBackup
from protocol.errors import Code, NotFoundError, SteadError
from protocol.outcome import OutcomeState
from protocol.selection import BY_DEFAULT, NO_COMMANDS, Commands, CommandStream, Rules
from protocol.vault.comparison import Difference, Terms, open_pages, side_of
from protocol.vault.entry import Entry, Owner
from tests.unit.backup.machine import WHO

KEY = X25519PrivateKey.generate()
NAMES = {"machine": "mc_1", "point": "rp_1"}
SIDE = side_of(Entry(b"x", 0o100644, Owner(0, 0), 1, 2))


def filled(count: int) -> Answer:
    terms = Terms((b"/etc",), KEY.public_key().public_bytes_raw())
    answer = Answer(terms, NAMES["machine"], NAMES["point"])
    for number in range(count):
        answer.add(Difference(b"etc", b"%d" % number, (), SIDE, None))
    answer.finish(Unseen(b"/"))
    return answer


def test_a_long_answer_comes_in_pages_and_in_order() -> None:
    pages = list(open_pages(KEY, filled(10_000).pages, **NAMES))
    assert len(pages) == 3
    names = [one.name for page in pages for one in page.differences]
    assert names == [b"%d" % number for number in range(10_000)]


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
