"""The thread that reads and the thread that writes."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from director.cli._run.io_threads import Descriptor, Feed, Writer
from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Iterator


async def test_all_items_in_order() -> None:
    assert [item async for item in Feed(range(1000), ahead=3)] == list(range(1000))


async def test_no_items() -> None:
    assert [item async for item in Feed([], ahead=3)] == []


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
        assert await anext(feed) == taken
        for _ in range(6 if taken == 1 else 1):  # five ahead, and one more in the hand of the waiting thread
            await asyncio.to_thread(pulled.acquire)
        assert count <= taken + 6
    feed.close()


async def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    feed = Feed(broken(), ahead=5)
    assert await anext(feed) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            await anext(feed)


async def test_close_ends_it_for_a_waiting_taker() -> None:
    gate = threading.Event()

    def blocked() -> Iterator[int]:
        gate.wait()
        yield 1

    feed = Feed(blocked(), ahead=5)
    taker = asyncio.create_task(anext(feed))
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await taker
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


class Gated:
    """A stream whose reader takes nothing until it is told to."""

    def __init__(self) -> None:
        self.writing = threading.Event()
        self.gate = threading.Event()
        self.lines: list[bytes] = []
        self.closed = False

    def write(self, lines: bytes) -> None:
        self.writing.set()
        self.gate.wait()
        self.lines.append(lines)

    def close(self) -> None:
        self.closed = True


async def test_a_slow_reader_does_not_hold_the_loop_and_gets_all_that_waited_at_once() -> None:
    stream, written = Gated(), []
    writer = Writer(stream, written.append, pytest.fail)
    writer.put(b"1\n")
    await asyncio.to_thread(stream.writing.wait)
    writer.put(b"2\n")
    writer.put(b"3\n")
    stream.gate.set()
    await writer.finish()
    assert stream.lines == [b"1\n", b"2\n3\n"]
    assert written == [1, 2]
    assert stream.closed


async def test_a_stream_that_breaks_is_told_once_and_the_rest_is_dropped() -> None:
    read, write = os.pipe()
    os.close(read)
    errors: list[OSError] = []
    written: list[int] = []
    told = asyncio.Event()
    writer = Writer(Descriptor(write), written.append, lambda error: (errors.append(error), told.set()))
    writer.put(b"1\n")
    await told.wait()
    writer.put(b"2\n")
    await writer.finish()
    assert [type(error) for error in errors] == [BrokenPipeError]
    assert sum(written) == 2  # places in the window come back all the same


async def test_a_pipe_that_does_not_block_is_written_whole() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    writer = Writer(Descriptor(write), lambda number: None, pytest.fail)
    writer.put(b"x" * 1_000_000)
    with os.fdopen(read, "rb") as reader:
        received = asyncio.create_task(asyncio.to_thread(reader.read))
        await writer.finish()
        assert len(await received) == 1_000_000


async def test_a_feed_says_that_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DirectorError, match="can't start new thread: director-feed needs a thread"):
        Feed([1], ahead=1)
