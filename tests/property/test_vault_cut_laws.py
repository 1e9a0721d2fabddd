from __future__ import annotations

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from protocol.vault.cut import Cutter

CUTTER = Cutter(0x5EED, 1024, 4096, 16384)
PIECES = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda seed, length: blake3(seed).digest(length),
        st.binary(max_size=4),
        st.integers(1, 60_000),
    ),
    st.builds(lambda length: bytes(length), st.integers(1, 60_000)),
)


@given(content=st.lists(PIECES, max_size=6).map(b"".join), data=st.data())
def test_the_cuts_are_the_same_however_the_content_is_fed(
    content: bytes, data: st.DataObject
) -> None:
    whole = CUTTER.cut(content, final=True)
    places = data.draw(st.lists(st.integers(0, len(content)), max_size=12).map(sorted))
    ends: list[int] = []
    done = 0
    for place in places:
        ends += [done + end for end in CUTTER.cut(content[done:place], final=False)]
        done = ends[-1] if ends else 0
    ends += [done + end for end in CUTTER.cut(content[done:], final=True)]
    assert ends == whole
