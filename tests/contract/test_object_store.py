"""What every object store promises; see `controller.store.store.ObjectStore`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.store.local import LocalStore
from controller.store.store import ObjectMissingError, ObjectStore
from protocol.errors import InvalidError
from tests.fakes.memory_store import MemoryStore

KEY = "tn_1/packs/ab/abcdef"


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else LocalStore.open(tmp_path / "objects")


def test_what_was_put_is_read_back_whole_and_in_ranges(store: ObjectStore) -> None:
    assert store.put(KEY, [b"abc", bytearray(b"def"), memoryview(b"ghi"), b""]) is True
    assert store.get(KEY) == b"abcdefghi"
    assert store.get(KEY, 2, 3) == b"cde"
    assert store.get(KEY, 7) == b"hi"
    assert store.get(KEY, 7, 100) == b"hi"
    assert store.get(KEY, 9) == store.get(KEY, 100, 5) == store.get(KEY, 0, 0) == b""
    assert store.size(KEY) == 9
    assert store.exists(KEY)


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert store.put(KEY, []) is True
    assert store.get(KEY) == b""
    assert list(store.list()) == [(KEY, 0)]


def test_a_key_in_use_keeps_its_object(store: ObjectStore) -> None:
    assert store.put(KEY, [b"first"])
    assert store.put(KEY, [b"second"]) is False
    assert store.get(KEY) == b"first"


def test_of_many_puts_at_once_one_wins_whole(store: ObjectStore) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda body: store.put(KEY, [body[:50_000], body[50_000:]]), bodies))
    assert won.count(True) == 1
    assert store.get(KEY) == bodies[won.index(True)]


def test_pieces_that_end_in_an_error_leave_nothing(store: ObjectStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "the sender's trouble, not the store's")

    with pytest.raises(OSError, match="sender"):
        store.put(KEY, pieces())
    assert not store.exists(KEY)
    assert list(store.list()) == []
    assert store.put(KEY, [b"whole"])


def test_what_is_not_there_is_named(store: ObjectStore) -> None:
    store.put("a/b", [b""])
    for key in (KEY, "a", "a/b/c"):
        for ask in (store.get, store.size):
            with pytest.raises(ObjectMissingError, match=key):
                ask(key)
        with pytest.raises(ObjectMissingError, match=key):
            store.quarantine(key, "why")
        assert store.exists(key) is False
        assert store.delete(key) is False


def test_a_deleted_object_is_gone_and_its_key_free(store: ObjectStore) -> None:
    store.put(KEY, [b"first"])
    assert store.delete(KEY) is True
    assert store.delete(KEY) is False
    assert list(store.list()) == []
    assert store.put(KEY, [b"second"]) is True
    assert store.get(KEY) == b"second"


def test_a_listing_is_sorted_by_key_and_takes_any_prefix(store: ObjectStore) -> None:
    keys = ["a-b", "a.b", "a/b", "a/b-c/d", "a0", "a/bc/d", "b/a", "B", "_", "ab"]
    for key in keys:
        store.put(key, [key.encode()])
    assert list(store.list()) == [(key, len(key)) for key in sorted(keys)]
    for prefix in ("a", "a/", "a/b", "a/b-", "a/b-c/d", "a/b-c/d/", "c", "b/a"):
        wanted = [key for key in sorted(keys) if key.startswith(prefix)]
        assert [key for key, _ in store.list(prefix)] == wanted


NO_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/.b",
    ".temporary/x",
    "a\n",
    "a\0",
    "ä",
    "a b",
]


@pytest.mark.parametrize("key", [*NO_KEYS, "a\\b", "a:b", "x" * 201, "/".join(["x" * 100] * 6)])
def test_a_key_that_is_no_key_is_refused(store: ObjectStore, key: str) -> None:
    for act in (
        lambda: store.put(key, [b""]),
        lambda: store.get(key),
        lambda: store.size(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.quarantine(key, "why"),
    ):
        with pytest.raises(InvalidError):
            act()


def test_a_key_cannot_begin_with_another(store: ObjectStore) -> None:
    store.put("a/b", [b"x"])
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(InvalidError):
            store.put(key, [b"y"])
    assert list(store.list()) == [("a/b", 1)]


def test_a_range_before_the_object_is_refused(store: ObjectStore) -> None:
    store.put(KEY, [b"abc"])
    for offset, length in ((-1, None), (0, -1)):
        with pytest.raises(InvalidError):
            store.get(KEY, offset, length)


def test_quarantine_frees_the_key_for_a_sound_object(store: ObjectStore) -> None:
    for body in (b"bad", b"worse"):
        store.put(KEY, [body])
        store.quarantine(KEY, "the hash differs")
        assert not store.exists(KEY)
        assert list(store.list()) == []
    assert store.put(KEY, [b"good"]) is True
    assert store.get(KEY) == b"good"


def test_free_room_is_a_size_or_unknown(store: ObjectStore) -> None:
    free = store.free_bytes()
    assert free is None or free > 0


def test_forgetting_what_memory_holds_changes_nothing(store: ObjectStore) -> None:
    store.put(KEY, [b"content"])
    store.drop_cached(KEY)
    assert store.get(KEY) == b"content"
    store.drop_cached("tn_1/packs/ab/absent")
    with pytest.raises(InvalidError):
        store.drop_cached("../outside")
