"""An upload by itself: how it asks for chunks, whatever pace they come at."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import pytest

from agent.backup.send import upload
from agent.backup.send.upload import ASK_BYTES, Upload
from protocol.vault.chunk import ChunkId, Kind, Sealer
from tests.fakes.memory_vault import Answered, MemoryVault
from tests.unit.backup.machine import TENANT_KEY

POINT = "rp_00000000000000000000000001"
PLAIN_BYTES = 64 * 1024


class Listening(MemoryVault):
    """Counts the chunks of every question."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[int] = []
        self.was_asked = threading.Event()
        self.meanwhile: Callable[[], None] | None = None

    def has(self, session: str, ids: Sequence[ChunkId]) -> Answered:
        self.questions.append(len(ids))
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        self.was_asked.set()
        return super().has(session, ids)


def uploading(vault: Listening) -> Upload:
    seed = random.Random(7)
    return Upload(vault, vault.begin(POINT), POINT, seed, patience_s=5.0)


def give_noise(upload: Upload, count: int) -> None:
    sealer, seed = Sealer(TENANT_KEY.secret), random.Random(count)
    for _ in range(count):
        upload.give(*sealer.seal(Kind.DATA, seed.randbytes(PLAIN_BYTES), []))


def test_chunks_are_asked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_LINGER_S", 600.0)
    vault = Listening()
    count = 2 * ASK_BYTES // PLAIN_BYTES
    with uploading(vault) as sending:
        give_noise(sending, count)
        sending.finish()
    assert sum(vault.questions) == count == len(vault.chunks)
    assert max(vault.questions) * PLAIN_BYTES >= ASK_BYTES * 0.9
    assert len(vault.questions) <= 3


def test_few_chunks_are_not_asked_for_beside_a_question_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "_LINGER_S", 600.0)
    vault = Listening()
    full = ASK_BYTES // PLAIN_BYTES
    with uploading(vault) as sending:
        vault.meanwhile = lambda: give_noise(sending, 5)
        give_noise(sending, full)
        assert vault.was_asked.wait(30)
        give_noise(sending, full - 5)
        sending.finish()
    assert sum(vault.questions) == len(vault.chunks)
    assert 5 not in vault.questions


def test_a_chunk_that_no_other_follows_is_asked_for_all_the_same() -> None:
    vault = Listening()
    with uploading(vault) as sending:
        give_noise(sending, 1)
        assert vault.was_asked.wait(30)
        sending.finish()
    assert vault.questions == [1]
