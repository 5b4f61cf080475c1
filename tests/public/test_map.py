"""`map`: results of a function over many items, sync or async, in order or as they are ready."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, collected, outcome, turns, until

from director import Director, DirectorClosed, JobTimeout, Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from director.testing import TestClock


class Boom(Exception):
    pass


def double(_device: Any, item: int) -> int:
    return 2 * item


def fail_at(*which: int) -> Callable[[Any, int], int]:
    def fail(_device: Any, item: int) -> int:
        if item in which:
            raise Boom(item)
        return item

    return fail


class Source:
    """Items without an end, sync or async; counts what was taken and whether it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = False

    def __iter__(self) -> Iterator[int]:
        try:
            for item in itertools.count():
                self.taken += 1
                yield item
        finally:
            self.closed = True

    async def each(self) -> AsyncIterator[int]:
        try:
            for item in itertools.count():
                self.taken += 1
                yield item
        finally:
            self.closed = True


async def some(count: int) -> AsyncIterator[int]:
    for item in range(count):
        yield item
        await asyncio.sleep(0)


ITEMS: list[Callable[[], Any]] = [
    lambda: list(range(50)),
    lambda: iter(range(50)),
    lambda: (item for item in range(50)),
    lambda: some(50),
    lambda: dict.fromkeys(range(50)),
]


@pytest.mark.parametrize("items", ITEMS, ids=["list", "iterator", "generator", "async", "dict"])
@pytest.mark.parametrize("ordered", [True, False])
async def test_every_item_once(items: Callable[[], Any], ordered: bool) -> None:
    async with Director("simulated:2") as director:
        results = [result async for result in director.map(double, items(), ordered=ordered)]
        assert (results if ordered else sorted(results)) == list(range(0, 100, 2))


@pytest.mark.parametrize("items", [list, lambda: some(0)], ids=["sync", "async"])
async def test_no_items_no_results(items: Callable[[], Any]) -> None:
    async with Director("simulated:1") as director:
        assert [result async for result in director.map(double, items())] == []


async def test_in_order_however_they_end(gate: Gate) -> None:
    gates = {0: Gate(), 1: Gate()}
    async with Director("simulated:2") as director:
        results = director.map(lambda device, item: gates[item](device, item), [0, 1])
        first = asyncio.create_task(anext(results))
        await gates[1].begun()
        gates[1].open()
        await turns()
        assert not first.done()
        gates[0].open()
        assert await first == 0
        assert [result async for result in results] == [1]


async def test_as_they_are_ready_when_order_does_not_matter() -> None:
    gates = {0: Gate(), 1: Gate()}
    async with Director("simulated:2") as director:
        results = director.map(lambda device, item: gates[item](device, item), [0, 1], ordered=False)
        first = asyncio.create_task(anext(results))
        await gates[1].begun()
        gates[1].open()
        assert await first == 1
        gates[0].open()
        assert [result async for result in results] == [0]


@pytest.mark.parametrize("endless", [lambda source: source, lambda source: source.each()], ids=["sync", "async"])
async def test_the_window_bounds_what_is_taken_from_an_endless_source(endless: Callable[[Source], Any]) -> None:
    source = Source()
    async with Director("simulated:2") as director:
        async with aclosing(director.map(double, endless(source), window=5)) as results:
            for count in range(1, 20):
                assert await anext(results) == 2 * (count - 1)
                await turns()
                assert source.taken <= count + 5
        await until(lambda: director.stats().queued == 0)


async def test_the_default_window_grows_with_the_slots() -> None:
    for slots, window in [(1, 32), (10, 80)]:
        source, gate = Source(), Gate()
        async with Director("simulated:1", slots=slots) as director:
            async with aclosing(director.map(gate, source)) as results:
                first = asyncio.create_task(anext(results))
                await turns()
                assert source.taken == window
                first.cancel()
                await asyncio.wait([first])
            gate.open()


async def test_a_slow_consumer_has_the_window_ahead_and_no_more(gate: Gate) -> None:
    source = Source()
    gate.open()
    async with Director("simulated:1") as director, aclosing(director.map(gate, source, window=4)) as results:
        assert await anext(results) == 0
        await until(lambda: gate.finished == 5)
        await turns()
        assert (source.taken, gate.finished) == (5, 5)


@pytest.mark.parametrize(("window", "error"), [(0, ValueError), (-1, ValueError), ("8", TypeError)])
async def test_a_wrong_window_is_refused_at_once(window: Any, error: type[Exception]) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(error):
            director.map(double, [1], window=window)


async def test_a_window_that_is_no_int_is_refused_at_once() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="window"):
            await director.map(double, [1], window=2.5).aclose()  # type: ignore[arg-type]


@pytest.mark.parametrize("items", [5, None, object(), double])
async def test_items_that_are_none_are_refused_at_once(items: Any) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="items"):
            director.map(double, items)


async def test_the_first_error_is_raised_after_the_results_before_it() -> None:
    async with Director("simulated:1") as director:
        seen, error = await collected(director.map(fail_at(3, 5), range(10)))
        assert seen == [0, 1, 2]
        assert isinstance(error, Boom)
        assert error.args == (3,)


async def test_an_error_cancels_what_is_left(gate: Gate) -> None:
    def work(device: Any, item: int) -> int:
        if item == 0:
            raise Boom
        return gate(device, item)

    async with Director("simulated:1") as director:
        with pytest.raises(Boom):
            await anext(director.map(work, Source()))
        await until(lambda: director.stats().queued + director.stats().running == 0)
        assert director.stats().failed == 1
        assert director.stats().cancelled > 1
        gate.open()  # for the one that may have begun
    assert len(gate.calls) <= 1


async def test_exceptions_as_results() -> None:
    async with Director("simulated:2") as director:
        results = [result async for result in director.map(fail_at(1, 3), range(5), return_exceptions=True)]
        assert [getattr(result, "args", result) for result in results] == [0, (1,), 2, (3,), 4]


async def test_timeouts_as_results(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        results = director.map(gate, range(2), timeout=5, return_exceptions=True)
        first = asyncio.create_task(anext(results))
        await gate.begun()
        await turns()
        clock.advance(5)
        assert isinstance(await first, JobTimeout)
        gate.open()
        assert [result async for result in results] == [1]


async def test_interrupts_are_raised_all_the_same() -> None:
    def interrupt(_device: Any, _item: int) -> None:
        raise KeyboardInterrupt

    async with Director("simulated:1") as director:
        with pytest.raises(KeyboardInterrupt):
            await anext(director.map(interrupt, [1], return_exceptions=True))


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_the_source_raises_comes_after_the_results_of_what_it_gave(ordered: bool) -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise Boom("source")

    async def broken_async() -> AsyncIterator[int]:
        for item in range(3):
            yield item
        raise Boom("source")

    async with Director("simulated:1") as director:
        for items in (broken(), broken_async()):
            seen, error = await collected(director.map(double, items, ordered=ordered))
            assert sorted(seen) == [0, 2, 4]
            assert isinstance(error, Boom)
            assert error.args == ("source",)


async def test_a_slow_source_does_not_hold_back_what_is_ready() -> None:
    more = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    async with Director("simulated:1") as director:
        results = director.map(double, slow())
        async with asyncio.timeout(PATIENCE):
            assert await anext(results) == 2
        more.set()
        assert [result async for result in results] == [4]


async def test_leaving_early_cancels_what_is_left(gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        gate.let(2)
        async for result in director.map(gate, source, window=10):
            assert result == 0
            break
        await until(lambda: director.stats().queued == 0)
        taken = source.taken
        gate.let(1)  # for the one that runs
        await director.drain()
        assert source.taken == taken
        assert director.stats().cancelled >= 8


async def test_aclose_cancels_what_is_left_and_waits_for_the_feeder(gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        results = director.map(gate, source.each(), window=10)
        gate.let(1)
        assert await anext(results) == 0
        await gate.begun()
        await results.aclose()
        assert director.stats().queued == 0
        assert director.stats().running == 0
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        gate.let(1)


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("endless", [lambda source: source, lambda source: source.each()], ids=["sync", "async"])
async def test_leaving_early_lets_go_of_the_source(endless: Callable[[Source], Any]) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        async with aclosing(director.map(double, endless(source))) as results:
            assert await anext(results) == 0
        await turns()
        assert source.closed


async def test_cancelling_the_consumer_cancels_what_is_left(gate: Gate) -> None:
    async def consume() -> None:
        async with aclosing(director.map(gate, Source())) as results:
            async for _ in results:
                pass

    async with Director("simulated:1") as director:
        consumer = asyncio.create_task(consume())
        await gate.begun()
        consumer.cancel()
        await asyncio.wait([consumer])
        assert consumer.cancelled()
        assert (director.stats().queued, director.stats().running) == (0, 0)
        gate.let(1)


async def test_one_that_is_never_stepped_does_nothing() -> None:
    source = Source()
    async with Director("simulated:1") as director:
        results = director.map(double, source)
        await turns()
        await results.aclose()
        feeders = [task for task in asyncio.all_tasks() if task.get_name() == "director:map"]
        for task in feeders:  # so that nothing else fails
            task.cancel()
        await turns()
        assert not feeders
        assert source.taken == 0


async def test_leaving_early_hides_no_error_and_reports_none(loop_errors: list[dict[str, Any]]) -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise Boom("source")

    async with Director("simulated:1") as director:
        async with aclosing(director.map(double, breaks())) as results:
            await anext(results)
            await turns()
        async with aclosing(director.map(fail_at(1), range(9))) as results:
            await anext(results)
            await until(lambda: director.stats().failed == 1)
        del results
        gc.collect()
    assert loop_errors == []


async def test_it_ends_with_director_closed_when_the_director_does(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        consumer = asyncio.create_task(collected(director.map(gate, Source(), window=4)))
        await gate.begun()
        gate.open()
    seen, error = await consumer
    assert isinstance(error, DirectorClosed)
    assert seen == list(range(len(gate.calls)))  # what was accepted has been yielded


async def test_the_results_are_not_kept_while_the_consumer_works() -> None:
    class Thing:
        pass

    async with Director("simulated:1") as director:
        watched = []
        async for thing in director.map(lambda *_: Thing(), range(5)):
            watched.append(weakref.ref(thing))
            del thing
            await until(lambda: watched[-1]() is None)


async def test_options_apply_to_every_item() -> None:
    model = Model(lambda device: device.index * 100)
    async with Director("simulated:2") as director:
        results = director.map(lambda base, item: base + item, range(3), model=model, devices=[1], priority=3)
        assert [result async for result in results] == [100, 101, 102]


async def test_two_at_once_share_the_devices() -> None:
    async def collect() -> list[int]:
        return [result async for result in director.map(double, range(100), window=3)]

    async with Director("simulated:2") as director:
        assert await asyncio.gather(collect(), collect()) == [list(range(0, 200, 2))] * 2


async def test_cancel_while_the_source_makes_one_wait() -> None:
    async def never() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async with Director("simulated:1") as director:
        results = director.map(double, never())
        waits = asyncio.create_task(anext(results))
        await turns()
        waits.cancel()
        assert isinstance(await outcome(waits), asyncio.CancelledError)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
