"""The thread that writes."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from director.cli._run.input.items import Item
from director.cli._run.output.sinks import Descriptor, LinesOnly, Record
from director.cli._run.output.writer import Writer


def record(line: bytes) -> Record:
    return Record(line, Item(0, None, b"null"))


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
    writer = Writer(LinesOnly(stream), written.append, pytest.fail)
    writer.put(record(b"1\n"))
    await asyncio.to_thread(stream.writing.wait)
    writer.put(record(b"2\n"))
    writer.put(record(b"3\n"))
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
    writer = Writer(LinesOnly(Descriptor(write)), written.append, lambda error: (errors.append(error), told.set()))
    writer.put(record(b"1\n"))
    await told.wait()
    writer.put(record(b"2\n"))
    await writer.finish()
    assert [type(error) for error in errors] == [BrokenPipeError]
    assert sum(written) == 2  # places in the window come back all the same


async def test_a_pipe_that_does_not_block_is_written_whole() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    writer = Writer(LinesOnly(Descriptor(write)), lambda number: None, pytest.fail)
    writer.put(record(b"x" * 1_000_000))
    with os.fdopen(read, "rb") as reader:
        received = asyncio.create_task(asyncio.to_thread(reader.read))
        await writer.finish()
        assert len(await received) == 1_000_000
