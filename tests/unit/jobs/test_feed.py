from __future__ import annotations

from controller.jobs.feed import Feed


async def test_everybody_who_listens_to_a_topic_is_woken_and_nobody_else() -> None:
    feed = Feed()
    with feed.listening("a") as one, feed.listening("a") as other, feed.listening("b") as third:
        feed.wake("a")
        assert one.is_set()
        assert other.is_set()
        assert not third.is_set()


async def test_a_topic_without_listeners_is_forgotten() -> None:
    feed = Feed()
    with feed.listening("a"):
        pass
    feed.wake("a")
    with feed.listening("a") as event:
        assert not event.is_set()
