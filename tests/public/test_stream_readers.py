"""Readers of a stream who leave, and generators that do not end when they are told to."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, collected, rested, turns, until

from director import (
    Device,
    Director,
    JobState,
    JobTimeout,
    check_cancelled,
)
from public.streams import Boom, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director.testing import TestClock


# ---- a reader that leaves


async def by_break(values: Any) -> None:
    async for _ in values:
        break


async def by_aclose(values: Any) -> None:
    await anext(values)
    await values.aclose()


async def by_block(values: Any) -> None:
    async with values as same:
        assert same is values
        await anext(values)


async def by_error(values: Any) -> None:
    with suppress(Boom):
        async with values:
            async for _ in values:
                raise Boom


async def by_garbage(values: Any) -> None:
    await anext(values)


async def by_cyclic_garbage(values: Any) -> None:
    await anext(values)
    holder = [values]
    holder.append(holder)
    del values, holder
    gc.collect()


async def by_garbage_on_another_thread(values: Any) -> None:
    await anext(values)
    held = [values]
    del values
    await asyncio.to_thread(held.clear)


async def by_cancellation(values: Any) -> None:
    """While it reads: one that is cancelled before its first value may leave a generator that has not begun."""
    reads = asyncio.Event()

    async def read() -> None:
        async for _ in values:
            reads.set()

    reader = asyncio.create_task(read())
    await reads.wait()
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize(
    "leave",
    [
        by_break,
        by_aclose,
        by_block,
        by_error,
        by_garbage,
        by_cyclic_garbage,
        by_garbage_on_another_thread,
        by_cancellation,
    ],
    ids=lambda fn: fn.__name__,
)
async def test_a_reader_that_leaves_closes_the_generator_on_its_thread_and_frees_the_slot(leave: Any) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        await leave(director.stream(source))
        await source.is_over()
        assert isinstance(source.ending, GeneratorExit)
        assert source.thread == "director:simulated:0/0"
        assert await director.run(lambda device: device.index) == 0
        await rested(director)
        assert source.job is not None
        assert source.job.state is JobState.CANCELLED
        assert director.stats().cancelled == 1


async def test_cancelled_while_it_waits_for_a_slot_it_never_runs(gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        reader = asyncio.create_task(collected(director.stream(source)))
        await turns()
        assert director.stats().queued == 1
        reader.cancel()
        await asyncio.wait([reader])
        assert director.stats().queued == 0
        gate.open()
    assert source.made == 0


async def test_a_reader_is_not_kept_waiting_by_what_the_generator_does(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        assert await anext(values) == 1
        await gate.begun()
        async with asyncio.timeout(PATIENCE / 2):
            await values.aclose()
        assert director.stats().devices[0].busy == 1  # the call goes on to its next `yield`
        gate.open()
        await rested(director)


async def test_between_two_values_it_can_ask_whether_anybody_reads() -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        try:
            while True:
                check_cancelled()
                nap.wait(0.001)
        except asyncio.CancelledError:
            seen.set()
            raise

    nap, seen = threading.Event(), threading.Event()
    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            await anext(values)
        await until(seen.is_set)


async def test_a_stream_that_always_has_a_value_does_not_hold_the_loop() -> None:
    """A reader that never has to wait would otherwise never let anybody else run, also not who cancels it."""
    source = Source(range(1000))
    async with Director("simulated:1") as director:
        values = director.stream(source, buffer=1000)
        assert await anext(values) == 0
        await until(lambda: source.made == 1000)
        reader = asyncio.create_task(collected(values))
        await turns(3)
        reader.cancel()
        seen, error = await reader
        assert 0 < len(seen) < 1000
        assert seen == list(range(1, 1 + len(seen)))
        assert isinstance(error, asyncio.CancelledError)


async def test_a_reader_that_leaves_lets_go_of_the_values_that_wait(gate: Gate) -> None:
    class Value:
        pass

    def generate(device: Device) -> Iterator[Value]:
        yield Value()
        value = Value()
        watched.append(weakref.ref(value))
        yield value
        del value
        gate(device)

    watched: list[weakref.ref[Value]] = []
    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            await anext(values)
            await gate.begun()
            assert watched[0]() is not None
        assert watched[0]() is None  # though the call goes on
        gate.open()


async def test_no_error_is_reported_that_nobody_asked_for(loop_errors: list[dict[str, Any]]) -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        raise Boom

    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            await anext(values)
            await until(lambda: director.stats().failed == 1)
        del values
        gc.collect()
    assert loop_errors == []


@pytest.mark.usefixtures("no_gc")
async def test_nothing_of_a_stream_is_left_for_the_collector() -> None:
    class Big:
        pass

    def generate(_device: Device, big: Big) -> Iterator[Big]:
        yield big
        raise Boom

    async with Director("simulated:1") as director:
        big = Big()
        watched = weakref.ref(big)
        with suppress(Boom):
            async for _value in director.stream(generate, big):
                del _value
        await rested(director)
        await turns()
        del big
        assert watched() is None


# ---- generators that don't end when they are told to


async def test_one_that_yields_in_finally_is_closed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            try:
                yield -1
                steps.append("never: it was closed at this yield")
            finally:
                yield -2
                steps.append("and at this one")

    steps: list[str] = []
    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            assert await anext(values) == 0
        await rested(director)
        assert await director.run(lambda device: device.index) == 0
    assert steps == []
    (record,) = [record for record in caplog.records if record.name == "director"]
    assert "generate yields while it is closed" in record.getMessage()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the interpreter complains too
async def test_one_that_never_ends_gives_its_slot_back(caplog: pytest.LogCaptureFixture) -> None:
    def generate(_device: Device) -> Iterator[int]:
        for number in itertools.count():
            with suppress(GeneratorExit):
                yield number

    async with Director("simulated:1") as director:
        kept = director.stream(generate)
        await anext(kept)
        await kept.aclose()
        await rested(director)
        assert await director.run(lambda device: device.index) == 0
    assert len([record for record in caplog.records if record.name == "director"]) == 1


async def test_what_it_raises_while_it_is_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise Boom("in finally")

    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            assert await anext(values) == 0
        await rested(director)
    (record,) = [record for record in caplog.records if record.name == "director"]
    assert "generate raised while it was closed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Boom)


async def move(clock: TestClock) -> None:
    await turns()
    clock.advance(5)


@pytest.mark.parametrize(
    ("end", "error"),
    [(lambda values, clock: values.aclose(), asyncio.CancelledError), (lambda values, clock: move(clock), JobTimeout)],
    ids=["left", "timeout"],
)
async def test_one_that_asks_in_finally_whether_it_is_cancelled_is_closed_silently(
    end: Any, error: type[BaseException], clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            with pytest.raises(error):
                check_cancelled()
            asked.set()
            check_cancelled()

    asked = threading.Event()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, timeout=5)
        assert await anext(values) == 0
        await end(values, clock)
        await until(asked.is_set)
        await rested(director)
    assert caplog.records == []
