"""Readers of a stream who are slow, and slots that many streams share."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

from harness.gates import PATIENCE, Gate, Recorder, collected, turns, until

from director import (
    Device,
    Director,
    SlowReader,
)
from director.events import JobFailed
from public.streams import Boom, Source, count, stalled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from director.testing import TestClock


# ---- slow readers


async def test_the_generator_is_never_further_ahead_than_the_buffer() -> None:
    source = Source()
    async with Director("simulated:1") as director, aclosing(director.stream(source, buffer=3)) as values:
        for number in range(10):
            assert await anext(values) == number
            await until(lambda number=number: source.made == number + 1 + 3 + 1)  # one more is made, and waits
            await turns()
            assert source.made == number + 5
    assert source.ended.is_set()


async def test_by_default_it_waits_for_its_reader_however_long(clock: TestClock) -> None:
    source = Source(range(10))
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=2)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(1_000_000)
        assert await collected(values) == (list(range(1, 10)), None)


async def test_a_reader_that_is_too_slow_is_cut_after_the_values_that_wait(
    clock: TestClock, recorder: Recorder
) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock, hooks=[recorder]) as director:
        values = director.stream(source, buffer=2, on_slow_reader="cancel", slow_reader_timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(4.9)
        await turns()
        assert not source.ended.is_set()
        clock.advance(0.1)
        await source.is_over()  # though nobody reads
        assert isinstance(source.ending, GeneratorExit)
        assert source.thread == "director:simulated:0/0"
        assert await director.run(lambda device: device.index) == 0
        seen, error = await collected(values)
        assert seen == [1, 2]
        assert isinstance(error, SlowReader)
        assert (error.seconds, error.buffer) == (5, 2)
        assert "slow_reader_timeout" in str(error)
        assert (director.stats().failed, director.stats().cancelled) == (1, 0)
    (failed,) = recorder.of(JobFailed)
    assert failed.error is error


async def test_a_reader_that_takes_one_value_in_time_is_not_cut(clock: TestClock) -> None:
    source = Source(range(20))
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=1, on_slow_reader="cancel", slow_reader_timeout=5)
        for number in range(18):
            assert await anext(values) == number
            await stalled(director, source)
            clock.advance(4.9)
        assert await collected(values) == ([18, 19], None)


async def test_a_generator_that_is_slow_itself_cuts_nobody(clock: TestClock, gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, buffer=1, on_slow_reader="cancel", slow_reader_timeout=5)
        assert await anext(values) == 1
        await gate.begun()
        clock.advance(1000)
        gate.open()
        assert await collected(values) == ([2], None)


async def test_a_stream_is_cut_also_if_its_generator_fails_to_clean_up(
    clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from source(_device)
        finally:
            raise Boom

    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, buffer=1, on_slow_reader="cancel", slow_reader_timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(5)
        seen, error = await collected(values)
        assert seen == [1]
        assert isinstance(error, SlowReader)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# ---- a first value that is left


async def test_a_stream_whose_first_value_is_left_is_cut_though_it_waits_for_readers(clock: TestClock) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=3, on_slow_reader="wait", slow_reader_timeout=5)
        await stalled(director, source)
        clock.advance(4.9)
        await turns()
        assert not source.ended.is_set()
        clock.advance(0.1)
        await source.is_over()
        assert isinstance(source.ending, GeneratorExit)
        assert await director.run(lambda device: device.index) == 0
        seen, error = await collected(values)
        assert seen == [0, 1, 2]
        assert isinstance(error, SlowReader)
        assert (error.seconds, error.buffer) == (5, 3)


async def test_the_first_value_is_timed_before_the_buffer_is_full(clock: TestClock, gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, slow_reader_timeout=5)
        await gate.begun()
        await turns()
        clock.advance(5)
        gate.open()
        seen, error = await collected(values)
        assert seen == [1]
        assert isinstance(error, SlowReader)
        assert "while 1 value waited" in str(error)


async def test_a_reader_that_takes_the_first_value_in_time_may_then_take_all_the_time(clock: TestClock) -> None:
    source = Source(range(5))
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=2, slow_reader_timeout=5)
        await stalled(director, source)
        clock.advance(4.9)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(1_000_000)
        await turns()
        assert await collected(values) == ([1, 2, 3, 4], None)


async def test_a_reader_that_waits_for_the_first_value_is_not_timed(clock: TestClock) -> None:
    source = Source(range(5))
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=1, slow_reader_timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(1_000_000)
        assert await collected(values) == ([1, 2, 3, 4], None)


async def test_values_of_a_generator_that_has_ended_wait_for_their_reader(clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(count, 3, slow_reader_timeout=5)
        await until(lambda: director.stats().succeeded == 1)
        clock.advance(1_000_000)
        assert await collected(values) == ([0, 1, 2], None)


# ---- many at once


async def test_generators_do_not_wait_for_the_loop_while_there_is_room() -> None:
    """Four generators take turns with each other, value by value, while the loop is blocked altogether."""

    def generate(_device: Device, number: int) -> Iterator[tuple[int, int]]:
        go.wait(PATIENCE)
        for turn in range(16):
            together.wait(PATIENCE)
            yield number, turn
        if together.wait(PATIENCE) == 0:
            done.set()

    together, go, done = threading.Barrier(4), threading.Event(), threading.Event()
    async with Director("simulated:2", slots=2) as director:
        readers = [asyncio.create_task(collected(director.stream(generate, n))) for n in range(4)]
        await until(lambda: director.stats().running == 4)
        go.set()
        assert done.wait(PATIENCE)  # blocks the loop
        assert not any(reader.done() for reader in readers)
        for number, (seen, error) in enumerate(await asyncio.gather(*readers)):
            assert seen == [(number, turn) for turn in range(16)]
            assert error is None


async def test_more_streams_than_slots_take_their_turns() -> None:
    async with Director("simulated:2") as director:
        results = await asyncio.gather(*[collected(director.stream(count, 50, buffer=3)) for _ in range(20)])
        assert results == [(list(range(50)), None)] * 20
        assert director.stats().succeeded == 20


async def test_streams_and_jobs_share_the_slots() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(lambda device: "job")
        stream = asyncio.create_task(collected(director.stream(count, 3)))
        assert await job == "job"
        assert await stream == ([0, 1, 2], None)
