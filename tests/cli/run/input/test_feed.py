"""The thread that reads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from director.cli._run.input.feed import Feed
from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Iterator


async def all_of(feed: Feed[int]) -> list[int]:
    taken: list[int] = []
    while items := await feed.take(2):
        assert len(items) <= 2
        taken += items
    return taken


async def one_of(feed: Feed[int]) -> int:
    (item,) = await feed.take(1)
    return item


async def test_all_items_in_order() -> None:
    assert await all_of(Feed(range(1000), ahead=3)) == list(range(1000))


async def test_no_items() -> None:
    assert await all_of(Feed([], ahead=3)) == []


async def test_an_endless_input_is_read_only_a_little_ahead() -> None:
    pulled = threading.Semaphore(0)
    count = 0

    def endless() -> Iterator[int]:
        nonlocal count
        while True:
            count += 1
            pulled.release()
            yield count

    feed = Feed(endless(), ahead=5)
    for taken in range(1, 4):
        assert await one_of(feed) == taken
        for _ in range(6 if taken == 1 else 1):  # five ahead, and one more in the hand of the waiting thread
            await asyncio.to_thread(pulled.acquire)
        assert count <= taken + 6
    feed.close()


async def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    feed = Feed(broken(), ahead=5)
    assert await one_of(feed) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            await one_of(feed)


async def test_close_ends_it_for_a_waiting_taker() -> None:
    gate = threading.Event()

    def blocked() -> Iterator[int]:
        gate.wait()
        yield 1

    feed = Feed(blocked(), ahead=5)
    taker = asyncio.create_task(feed.take(1))
    await asyncio.sleep(0)
    feed.close()
    assert await taker == []
    gate.set()


async def test_a_reader_that_outlives_the_loop_just_ends() -> None:
    gate = threading.Event()
    seen: list[threading.Thread] = []

    def late() -> Iterator[int]:
        seen.append(threading.current_thread())
        gate.wait()
        yield 1

    def use() -> None:
        async def main() -> None:
            feed = Feed(late(), ahead=1)
            await asyncio.sleep(0)
            assert feed is not None

        asyncio.run(main())

    await asyncio.to_thread(use)
    gate.set()
    await asyncio.to_thread(seen[0].join)  # and pytest would report what it raised


async def test_a_feed_says_that_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DirectorError, match="can't start new thread: director-feed needs a thread"):
        Feed([1], ahead=1)
