from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from agent.inventory.delta import Changes, changed, root_of
from protocol.errors import InvalidError

digests = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
manifests = st.dictionaries(names, digests, max_size=6)


def test_the_root_is_one_hash_over_sorted_names_and_hashes() -> None:
    one, two = b"1" * 32, b"2" * 32
    expected = blake3(b"cpu\0" + one + b"ports\0" + two).digest()
    assert root_of({"ports": two, "cpu": one}) == expected


@given(manifests, manifests)
def test_roots_are_equal_exactly_when_nothing_changed(
    old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    assert (root_of(old) == root_of(new)) == (not changed(old, new)) == (old == new)


def test_the_same_hash_read_twice_is_no_change() -> None:
    one, other = ({"cpu": bytes([7]) * count} for count in (32, 32))
    assert one["cpu"] is not other["cpu"]
    assert changed(one, other) == Changes()


@given(manifests, manifests)
def test_the_old_manifest_with_its_changes_is_the_new_one(
    old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    changes = changed(old, new)
    kept = {name: digest for name, digest in old.items() if name not in changes.removed}
    assert kept | {name: new[name] for name in changes.to_send} == new
    assert changed(new, new) == Changes()


@pytest.mark.parametrize("manifest", [{"a\0b": bytes(32)}, {"cpu": bytes(31)}, {"cpu": b""}])
def test_a_manifest_that_could_pass_for_another_is_refused(manifest: dict[str, bytes]) -> None:
    with pytest.raises(InvalidError):
        root_of(manifest)
