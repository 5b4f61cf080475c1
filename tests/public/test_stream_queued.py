"""`stream` is queued when it is called, and gives a `Stream`: what it refuses, its job, and its one reader."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, collected, outcome, rested, turns, until

import director as package
from director import (
    DeadlineUnreachable,
    Device,
    Director,
    Job,
    JobState,
    PlacementError,
    QueueFull,
    Stream,
)
from public.streams import Boom, Source, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director.testing import TestClock


class Busy:
    """A Director whose slot is taken until the gate is opened, and in whose queue there is no room."""

    def __init__(self, gate: Gate, when_full: Any = None) -> None:
        self.gate = gate
        self.director = Director("simulated:1", max_queue=0, when_full=when_full)

    async def __aenter__(self) -> Director:
        await self.director.start()
        self.director.submit(self.gate)
        await self.gate.begun()
        return self.director

    async def __aexit__(self, *_: object) -> None:
        self.gate.open()
        await self.director.close()


# ---- queued when it is called


async def test_it_is_queued_when_it_is_called_and_runs_without_a_reader() -> None:
    source = Source(range(3))
    async with Director("simulated:1") as director:
        values = director.stream(source)
        assert values.job.state is JobState.QUEUED
        assert director.stats().queued == 1
        await values.job
        assert source.made == 3
        assert await collected(values) == ([0, 1, 2], None)


async def test_it_is_refused_at_once_for_a_full_queue_as_a_submission_is(gate: Gate) -> None:
    async with Busy(gate) as director:
        for refused in (director.stream, lambda *args: director.function(count).stream(*args[1:])):
            with pytest.raises(QueueFull):
                refused(count, 2)
        assert director.stats().rejected == 2


@pytest.mark.parametrize("of_director", [None, "refuse", "wait"])
async def test_when_full_says_whether_it_is_refused(gate: Gate, of_director: Any) -> None:
    async with Busy(gate, of_director) as director:
        streams = [director.stream(count, 2, when_full="wait")]
        streams.append(director.function(count, when_full="wait").stream(2))
        if of_director == "wait":
            streams.append(director.stream(count, 2))
        with pytest.raises(QueueFull):
            director.stream(count, 2, when_full="refuse")
        assert director.stats().queued == len(streams)
        gate.open()
        for values in streams:
            assert await collected(values) == ([0, 1], None)


async def test_it_is_refused_at_once_where_it_can_never_run() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(PlacementError):
            director.stream(count, 2, devices=[7])


async def test_it_is_refused_at_once_if_it_would_miss_its_deadline(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", admission="predict", clock=clock) as director:
        job = director.submit(gate)
        await gate.begun()
        clock.advance(10)
        gate.let(1)
        await job
        for _ in range(2):
            director.submit(gate)
        await gate.begun()
        with pytest.raises(DeadlineUnreachable):
            director.stream(count, 2, deadline=1)
        gate.open()


async def test_it_is_refused_outside_of_the_event_loop() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            await asyncio.to_thread(director.stream, count, 1)


# ---- its job


async def test_its_job_is_an_ordinary_one() -> None:
    async with Director("simulated:1") as director:
        values = director.stream(count, 2, name="talk", priority=3, tenant="a")
        assert isinstance(values.job, Job)
        assert (values.job.name, values.job.priority, values.job.tenant) == ("talk", 3, "a")
        assert await collected(values) == ([0, 1], None)
        assert await values.job is None
        assert values.job.state is JobState.SUCCEEDED
        assert values.job.ran is not None


async def test_cancelling_its_job_ends_it_after_the_values_that_wait() -> None:
    source = Source()
    async with Director("simulated:1") as director:
        values = director.stream(source, buffer=2)
        assert await anext(values) == 0
        await until(lambda: source.made == 4)
        assert values.job.cancel()
        seen, error = await collected(values)
        assert seen == [1, 2]
        assert isinstance(error, asyncio.CancelledError)
        await source.is_over()


async def test_its_text_names_the_job() -> None:
    async with Director("simulated:1") as director:
        values = director.stream(count, 1, name="talk")
        assert repr(values) == f"<Stream of {values.job!r}>"


# ---- one reader at a time, and the end


async def test_a_second_reader_at_a_time_is_refused_and_harms_nothing(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        gate(device)
        yield 1
        yield 2

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        first = asyncio.ensure_future(anext(values))
        await gate.begun()
        with pytest.raises(RuntimeError, match="read by another task already"):
            await anext(values)
        gate.open()
        assert await first == 1
        assert await collected(values) == ([2], None)


async def test_after_its_end_there_are_no_more_values_for_ever() -> None:
    async with Director("simulated:1") as director:
        values = director.stream(count, 1)
        assert await collected(values) == ([0], None)
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(values)


async def test_an_error_is_raised_once_after_the_values_and_then_it_is_at_its_end() -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        raise Boom

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        await outcome(values.job)
        assert await anext(values) == 1
        with pytest.raises(Boom):
            await anext(values)
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(values)


async def test_after_a_cancelled_read_it_is_at_its_end(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield gate(device, 1)

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        reader = asyncio.ensure_future(anext(values))
        await gate.begun()
        reader.cancel()
        assert isinstance(await outcome(reader), asyncio.CancelledError)
        assert values.job.cancelled()
        with pytest.raises(StopAsyncIteration):
            await anext(values)
        gate.open()


async def test_closing_ends_a_pending_read_and_may_be_repeated(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield gate(device, 1)

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        reader = asyncio.ensure_future(anext(values, "the end"))  # type: ignore[arg-type]
        await gate.begun()
        for _ in range(2):
            await values.aclose()
        assert values.job.cancelled()
        assert await reader == "the end"  # type: ignore[comparison-overlap]
        gate.open()


async def test_closing_one_that_has_ended_changes_nothing() -> None:
    async with Director("simulated:1") as director:
        async with director.stream(count, 1) as values:
            await values.job
        assert values.job.state is JobState.SUCCEEDED
        with pytest.raises(StopAsyncIteration):
            await anext(values)


async def test_leaving_the_block_does_not_wait_for_the_generator(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            gate(device)

    async with Director("simulated:1") as director:
        async with director.stream(generate, buffer=1) as values:
            assert await anext(values) == 1
        assert values.job.cancelled()
        await gate.begun()
        assert director.stats().devices[0].busy == 1
        gate.open()
        await rested(director)


@pytest.mark.usefixtures("no_gc")
async def test_one_that_is_dropped_in_the_queue_never_runs(gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        values = director.stream(source)
        job = values.job
        del values
        await turns()
        assert job.cancelled()
        gate.open()
    assert source.made == 0


@pytest.mark.usefixtures("no_gc")
async def test_a_reader_that_is_dropped_while_it_waits_cancels_the_job(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        values = director.stream(Source())
        reading = values.__anext__()
        reading.send(None)  # as a task that is destroyed while it is pending
        reading.close()
        await turns()
        assert values.job.cancelled()
        gate.open()


async def test_one_that_is_refused_leaves_nothing_behind(gate: Gate, loop_errors: list[dict[str, Any]]) -> None:
    async with Busy(gate) as director:
        with pytest.raises(QueueFull):
            director.stream(count, 2)
        gc.collect()
    assert loop_errors == []


def test_the_class_is_public_and_generic() -> None:
    assert "Stream" in package.__all__
    assert package.Stream is Stream
    assert Stream[int] is not None
