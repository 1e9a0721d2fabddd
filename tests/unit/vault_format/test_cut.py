from __future__ import annotations

import pyfastcdc
import pytest
from blake3 import blake3

from protocol.errors import Code, InvalidError, SteadError
from protocol.vault.cut import Cutter
from protocol.vault.sizes import BIG, SMALL

CONTENT = blake3(b"content to cut").digest(6 << 20) + bytes(3 << 20)


@pytest.mark.parametrize("sizes", [BIG, SMALL])
def test_chunks_keep_to_their_sizes_and_cover_the_content(sizes: tuple[int, int, int]) -> None:
    ends = Cutter(12345, *sizes).cut(CONTENT, final=True)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == len(CONTENT)
    assert max(lengths) <= sizes[2]
    assert min(lengths[:-1]) >= sizes[0]


def test_the_seed_decides_where_the_cuts_are() -> None:
    one, two = (Cutter(seed, *SMALL).cut(CONTENT, final=True) for seed in (1 << 62, 12345))
    assert set(one) & set(two) == {len(CONTENT)}


def test_an_insertion_moves_only_the_cuts_near_it() -> None:
    cutter = Cutter(12345, *SMALL)
    content = CONTENT[: 6 << 20]
    before = cutter.cut(content, final=True)
    after = cutter.cut(content[:1000] + b"inserted" + content[1000:], final=True)
    assert len(set(before) - {end - 8 for end in after}) <= 2


def test_nothing_is_cut_from_nothing() -> None:
    assert Cutter(1, *SMALL).cut(b"", final=True) == []
    assert Cutter(1, *SMALL).cut(b"", final=False) == []


@pytest.mark.parametrize(
    ("seed", "sizes"),
    [(0, SMALL), (1 << 63, SMALL), (-1, SMALL), (1, (10, 5, 1)), (1, (64, 256, 32 << 20))],
)
def test_impossible_settings_are_refused(seed: int, sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidError):
        Cutter(seed, *sizes)


def test_a_machine_without_the_compiled_cutter_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyfastcdc.py import FastCDC

    monkeypatch.setattr(pyfastcdc, "FastCDC", FastCDC)
    with pytest.raises(SteadError) as caught:
        Cutter(1, *SMALL)
    assert caught.value.code is Code.UNSUPPORTED
