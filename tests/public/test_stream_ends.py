"""How a stream ends without its reader: its time is up, it is tried again, or the Director closes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, Recorder, collected, rested, turns, until

from director import (
    Device,
    Director,
    JobAborted,
    JobError,
    JobTimeout,
    SlowReader,
    current_job,
)
from director.events import JobRetried
from public.streams import Boom, Source, stalled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director.testing import TestClock


# ---- time limits


async def test_time_is_up_while_it_runs(clock: TestClock, gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        yield 2
        gate(device)
        yield 3

    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, timeout=5)
        assert await anext(values) == 1
        await gate.begun()
        await turns()
        clock.advance(5)
        seen, error = await collected(values)
        assert seen == [2]
        assert isinstance(error, JobTimeout)
        assert error.phase == "running"
        gate.open()
        await rested(director)


async def test_time_is_up_while_it_waits_for_its_reader(clock: TestClock) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=2, timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(5)
        await source.is_over()
        assert isinstance(source.ending, GeneratorExit)
        assert await director.run(lambda device: device.index) == 0
        seen, error = await collected(values)
        assert seen == [1, 2]
        assert isinstance(error, JobTimeout)


async def test_a_deadline_that_passes_in_the_queue_counts_from_the_call(clock: TestClock, gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        values = director.stream(source, deadline=5)
        clock.advance(3)  # before its reader comes
        reader = asyncio.create_task(collected(values))
        await turns()
        clock.advance(1.9)
        await turns()
        assert not reader.done()
        clock.advance(0.1)
        seen, error = await reader
        assert seen == []
        assert isinstance(error, JobTimeout)
        assert error.phase == "queued"
        gate.open()
    assert source.made == 0


# ---- the end of the Director


async def test_draining_waits_for_a_reader_that_reads(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield from range(100)
        gate(device)
        yield 100

    async with Director("simulated:1") as director:
        reader = asyncio.create_task(collected(director.stream(generate, buffer=1)))
        await gate.begun()
        draining = asyncio.create_task(director.drain())
        await turns()
        assert not draining.done()
        gate.open()
        assert await reader == (list(range(101)), None)
        await draining


@pytest.mark.parametrize("full_before", [True, False])
async def test_draining_waits_for_a_reader_that_does_not_read_until_its_limit(
    clock: TestClock, gate: Gate, full_before: bool
) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 0
        gate(device)
        yield from source(device)

    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, buffer=1, slow_reader_timeout=5)
        assert await anext(values) == 0
        if full_before:
            gate.open()
            await stalled(director, source)
            clock.advance(100)  # it may wait as long as the Director is open
        draining = asyncio.create_task(director.drain())
        await turns()
        gate.open()
        await stalled(director, source)
        clock.advance(4.9)
        await turns()
        assert not draining.done()
        clock.advance(0.1)
        await draining
        assert isinstance(source.ending, GeneratorExit)
        seen, error = await collected(values)
        assert seen == [0]
        assert isinstance(error, SlowReader)


async def test_closing_from_the_task_that_reads_does_not_hang() -> None:
    source = Source()
    async with Director("simulated:1") as director:
        values = director.stream(source, slow_reader_timeout=0.01)
        assert await anext(values) == 0
    assert isinstance(source.ending, GeneratorExit)
    await values.aclose()


@pytest.mark.serial
@pytest.mark.parametrize("in_haste", [lambda director: director.close(0), None], ids=["close", "exception"])
async def test_closing_in_haste_cancels_streams_at_once(in_haste: Any, caplog: pytest.LogCaptureFixture) -> None:
    waits, reads = Source(), Source()
    began = asyncio.get_running_loop().time()
    with suppress(Boom):
        async with Director("simulated:2") as director:
            values = director.stream(waits, buffer=2)
            assert await anext(values) == 0
            reader = asyncio.create_task(collected(director.stream(reads)))
            await until(lambda: reads.made > 100)
            if in_haste is None:
                raise Boom
            await in_haste(director)
    assert asyncio.get_running_loop().time() - began < 0.9  # not the grace of those that can't be told to end
    assert isinstance(waits.ending, GeneratorExit)
    assert isinstance(reads.ending, GeneratorExit)
    for seen, error in [await collected(values), await reader]:
        assert isinstance(error, JobAborted)
        assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert caplog.records == []


async def test_closing_in_haste_leaves_one_behind_that_does_not_come_to_a_value(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    director = Director("simulated:1")
    await director.start()
    values = director.stream(generate)
    assert await anext(values) == 1
    await gate.begun()
    await director.close(0, grace=0.01)
    assert isinstance((await collected(values))[1], JobAborted)
    gate.open()
    await until(lambda: gate.finished == 1)


LEAVING = """
import asyncio, threading
from director import Director

ended = threading.Event()

def generate(device):
    try:
        while True:
            yield 1
    finally:
        ended.set()

async def main():
    global values
    director = Director("simulated:1")
    await director.start()
    values = director.stream(generate, buffer=2)
    await anext(values)
    {leave}

{run}
del values
assert ended.wait(5)
print("ended")
"""


@pytest.mark.parametrize(
    ("leave", "run"),
    [
        ("", "asyncio.run(main())"),
        ("raise SystemExit", "try: asyncio.run(main())\nexcept SystemExit: pass"),
        ("", "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\nloop.close()"),
    ],
    ids=["run", "exit", "closed loop"],
)
def test_a_loop_that_ends_leaves_no_generator_waiting(python: Callable[[str], str], leave: str, run: str) -> None:
    assert "ended" in python(LEAVING.format(leave=leave, run=run))


async def test_a_generator_that_raises_the_end_of_an_iteration_has_not_ended() -> None:
    def generate(_: Device) -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    async with Director("simulated:1") as director:
        seen, error = await collected(director.stream(generate))
        assert seen == [1]
        assert isinstance(error, RuntimeError)  # as from any async generator
        assert isinstance(error.__cause__, StopAsyncIteration)


async def test_streams_end_with_a_director_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    director = Director("simulated:1")
    await director.start()
    values = director.stream(source, buffer=1)
    assert await anext(values) == 0
    await until(lambda: source.made == 3)
    assert director._runtime is not None
    director._runtime.fail(Boom("inside"))
    await source.is_over()
    seen, error = await collected(values)
    assert seen == [1]
    assert isinstance(error, JobError)
    await director.close()


# ---- second tries


@pytest.mark.parametrize(("values", "tries"), [(0, 3), (1, 1)], ids=["before the first value", "after it"])
async def test_it_is_tried_again_only_before_its_first_value(values: int, tries: int, recorder: Recorder) -> None:
    def generate(_device: Device) -> Iterator[int]:
        made.append(current_job().attempts)
        yield from range(values)
        if len(made) < 3:
            raise Boom(len(made))
        yield 99

    made: list[int] = []
    async with Director("simulated:2", hooks=[recorder]) as director:
        seen, error = await collected(director.stream(generate, retries=5, retry_on=Boom))
    assert made == list(range(1, tries + 1))
    assert len(recorder.of(JobRetried)) == tries - 1
    assert seen == ([99] if error is None else [0])
    assert (error is None) is (tries == 3)


async def test_a_reader_can_leave_between_two_tries(clock: TestClock) -> None:
    def generate(_device: Device) -> Iterator[int]:
        made.append(1)
        raise Boom
        yield

    made: list[int] = []
    async with Director("simulated:1", clock=clock) as director:
        reader = asyncio.create_task(collected(director.stream(generate, retries=5, retry_on=Boom, backoff=10)))
        await until(lambda: made and director.stats().queued == 1)
        reader.cancel()
        _, error = await reader
        assert isinstance(error, asyncio.CancelledError)
        clock.advance(100)
        await turns()
        assert len(made) == 1
