"""`map` with all at once: order, window, retries, refused items, errors as results; and its manners on the loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from harness.effort import examples
from harness.gates import PATIENCE, Gate, Recorder, collected, rested, turns, until
from hypothesis import given, settings
from hypothesis import strategies as st

from director import DeadlineUnreachable, Director, DirectorClosed
from director.events import JobRetried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from director.testing import TestClock


class Boom(Exception):
    pass


class Worse(Exception):
    pass


# ---- a model: what must come of items, each with a fate of its own


@dataclass(frozen=True)
class Fate:
    """How often an item fails before it succeeds, and with what."""

    number: int
    failures: int
    error: type[Exception]


def fates() -> st.SearchStrategy[list[Fate]]:
    kinds = st.tuples(st.sampled_from([0, 0, 0, 1, 2, 3]), st.sampled_from([Boom, Boom, Worse]))
    return st.lists(kinds, max_size=12).map(lambda drawn: [Fate(i, *fate) for i, fate in enumerate(drawn)])


class Story:
    """One `map` over items with fates, on two devices."""

    def __init__(self, items: list[Fate], window: int, ordered: bool, retries: int, is_async: bool) -> None:
        self.items = items
        self.window = window
        self.ordered = ordered
        self.retries = retries
        self.is_async = is_async
        self.tries: Counter[int] = Counter()
        self.taken = self.yielded = self.most = 0
        self._lock = threading.Lock()

    def work(self, _device: Any, item: Fate) -> int:
        with self._lock:
            self.tries[item.number] += 1
            tries = self.tries[item.number]
        if tries <= item.failures:
            raise item.error(item.number)
        return item.number

    def outcome(self, item: Fate) -> tuple[str, int]:
        """What must come of an item, by the model."""
        again = self.retries if item.error is Boom else 0
        return ("ok" if item.failures <= again else item.error.__name__, item.number)

    def source(self) -> Iterator[Fate]:
        for item in self.items:
            self.taken += 1
            self.most = max(self.most, self.taken - self.yielded)
            yield item

    async def later(self) -> AsyncIterator[Fate]:
        for item in self.source():
            yield item
            await asyncio.sleep(0)

    async def tell(self, return_exceptions: bool) -> list[tuple[str, int]]:
        told: list[tuple[str, int]] = []
        retrying: dict[str, Any] = {"retries": self.retries, "retry_on": Boom} if self.retries else {}
        async with Director("simulated:2") as director:
            results = director.map(
                self.work,
                self.later() if self.is_async else self.source(),
                window=self.window,
                ordered=self.ordered,
                return_exceptions=return_exceptions,
                **retrying,
            )
            try:
                async for result in results:
                    self.yielded += 1
                    told.append(as_told(result))
            except (Boom, Worse) as error:
                told.append(as_told(error))
        return told


def as_told(result: Any) -> tuple[str, int]:
    return (type(result).__name__, result.args[0]) if isinstance(result, Exception) else ("ok", result)


stories = st.builds(Story, fates(), st.integers(1, 5), st.booleans(), st.integers(0, 2), st.booleans())


@settings(max_examples=examples(60))
@given(stories)
def test_every_item_gives_what_it_must_at_its_place(story: Story) -> None:
    told = asyncio.run(story.tell(return_exceptions=True))
    expected = [story.outcome(item) for item in story.items]
    assert told == expected if story.ordered else sorted(told) == sorted(expected)
    assert story.most <= story.window
    assert story.taken == len(story.items)


@settings(max_examples=examples(60))
@given(stories)
def test_the_first_error_ends_it_where_it_stands(story: Story) -> None:
    told = asyncio.run(story.tell(return_exceptions=False))
    expected = [story.outcome(item) for item in story.items]
    failed = [index for index, (kind, _) in enumerate(expected) if kind != "ok"]
    if story.ordered:
        assert told == (expected[: failed[0] + 1] if failed else expected)
    else:
        assert set(told) <= set(expected)
        assert [kind for kind, _ in told[:-1]] == ["ok"] * len(told[:-1])
        assert bool(failed) is (bool(told) and told[-1][0] != "ok")
    assert story.most <= story.window


# ---- retries


async def test_an_item_in_its_back_off_keeps_its_place_and_its_room(
    gate: Gate, clock: TestClock, recorder: Recorder
) -> None:
    def work(_device: Any, item: int) -> int:
        made.append(item)
        if item == 0 and len(made) == 1:
            raise Boom
        return item

    made: list[int] = []
    taken = itertools.count()
    async with Director("simulated:1", clock=clock, hooks=[recorder]) as director:
        results = director.map(work, taken, window=3, retries=1, retry_on=Boom, backoff=5)
        first = asyncio.create_task(anext(results))
        await recorder.seen(JobRetried)
        await until(lambda: len(made) == 3)  # 0 has failed, 1 and 2 are done
        await turns()
        assert not first.done()
        assert next(taken) == 3  # nothing more was taken
        clock.advance(5)
        assert await first == 0
        assert await anext(results) == 1
        await results.aclose()


async def test_leaving_early_forgets_an_item_in_its_back_off(clock: TestClock, recorder: Recorder) -> None:
    def work(_device: Any, item: int) -> int:
        made.append(item)
        if item == 1:
            raise Boom
        return item

    made: list[int] = []
    async with Director("simulated:1", clock=clock, hooks=[recorder]) as director:
        async with aclosing(director.map(work, [0, 1], retries=3, retry_on=Boom, backoff=5)) as results:
            assert await anext(results) == 0
            await recorder.seen(JobRetried)
        clock.advance(100)
        await turns()
        await rested(director)
    assert made == [0, 1]


# ---- refused items


async def test_an_item_that_is_refused_fails_at_its_place() -> None:
    director = Director("simulated:1")

    @director.function(max_batch_size=4, batch_cost=lambda item: 1 if item != 2 else -1)
    def double(_device: Any, items: list[int]) -> list[int]:
        return [2 * item for item in items]

    async with director:
        results = [result async for result in double.map(range(4), return_exceptions=True)]
        assert isinstance(results[2], ValueError)
        assert results[:2] + results[3:] == [0, 2, 6]
        seen, error = await collected(double.map(itertools.count()))
        assert seen == [0, 2]
        assert isinstance(error, ValueError)
        anyhow = [result async for result in double.map(range(4), ordered=False, return_exceptions=True)]
        assert sorted(str(type(result).__name__) for result in anyhow) == ["ValueError", "int", "int", "int"]


async def test_items_that_would_miss_their_deadline_are_results_too(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock, admission="predict") as director:
        job = director.submit(gate)
        await gate.begun()
        clock.advance(10)  # so long takes a job here
        gate.let(1)
        await job
        director.submit(gate)
        await gate.begun()
        results = [result async for result in director.map(gate, range(3), deadline=1, return_exceptions=True)]
        assert [type(result) for result in results] == [DeadlineUnreachable] * 3
        gate.open()


async def test_a_closed_director_is_not_the_fault_of_an_item(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        results = director.map(gate, itertools.count(), window=2, return_exceptions=True)
        first = asyncio.create_task(anext(results))
        await gate.begun()
        gate.open()
    assert await first == 0
    rest, error = await collected(results)
    assert rest in ([], [1])
    assert isinstance(error, DirectorClosed)


# ---- sources


@pytest.mark.parametrize("wait", [True, False], ids=["while it waits", "while it rests"])
async def test_the_end_closes_the_source_and_nobody_else_does(wait: bool) -> None:
    """Whoever gave the source may go on with it, unless it was cancelled in the middle of a step."""

    async def source() -> AsyncIterator[int]:
        for number in itertools.count():
            if wait and number == 1:
                await asyncio.Event().wait()
            yield number

    items = source()
    async with Director("simulated:1") as director:
        async with aclosing(director.map(lambda _, item: item, items, window=1)) as results:
            assert await anext(results) == 0
            await turns()
        if wait:
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        else:
            assert await anext(items) == 2  # 1 was taken


@pytest.mark.usefixtures("no_gc")
async def test_the_end_lets_go_of_the_source_at_once() -> None:
    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    closed: list[bool] = []
    async with Director("simulated:1") as director:
        async with aclosing(director.map(lambda _, item: item, source())) as results:
            assert await anext(results) == 0
        assert closed == [True]  # with no turn of the loop in between


class Item:
    """Something that can be watched."""


class Items:
    """Keeps none of the items it gives; then gives no more, or makes one wait."""

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self.watched: list[weakref.ref[Item]] = []

    def give(self) -> Item:
        item = Item()
        self.watched.append(weakref.ref(item))
        return item

    def __iter__(self) -> Iterator[Item]:
        for _ in range(2):
            yield self.give()

    async def later(self) -> AsyncIterator[Item]:
        yield self.give()
        if self.waits:
            await asyncio.Event().wait()
        yield self.give()


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", ["waits for the source", "waits for room", "waits for room, sync"])
async def test_items_are_kept_no_longer_than_their_jobs(kind: str) -> None:
    items = Items(waits=kind == "waits for the source")
    source = items if kind.endswith("sync") else items.later()
    async with Director("simulated:1") as director:
        results = director.map(lambda _device, _item: None, source, window=2 if items.waits else 1)
        assert await anext(results) is None
        await until(lambda: director.stats().succeeded == (1 if items.waits else 2))
        await rested(director)
        await turns()
        assert not any(item() for item in items.watched)
        await results.aclose()


async def test_a_source_that_keeps_its_cancellation_to_itself_gives_no_more_jobs(gate: Gate) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        for number in itertools.count(1):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield number

    gate.open()
    async with Director("simulated:1") as director:
        async with asyncio.timeout(PATIENCE), aclosing(director.map(gate, source())) as results:
            assert await anext(results) == 0
            await turns()
        await turns()
        await rested(director)
    assert gate.items == [0]


async def test_a_source_that_takes_long_without_waiting_lets_the_loop_turn(clock: TestClock) -> None:
    """Workers are hired by the loop: they must not wait until the window is full."""

    def slow() -> Iterator[int]:
        for number in range(32):
            turned.append(loop_turns)
            clock.advance(0.01)
            yield number

    async def count() -> None:
        nonlocal loop_turns
        while True:
            loop_turns += 1
            await asyncio.sleep(0)

    loop_turns = 0
    turned: list[int] = []
    async with Director("simulated:1", clock=clock) as director:
        counting = asyncio.create_task(count())
        assert [result async for result in director.map(lambda _, item: item, slow())] == list(range(32))
        counting.cancel()
    assert len(set(turned)) == 32


async def test_results_that_are_all_there_do_not_hold_the_loop(gate: Gate) -> None:
    gate.open()
    async with Director("simulated:1") as director:
        results = director.map(gate, range(500), window=500)
        assert await anext(results) == 0
        await until(lambda: director.stats().succeeded == 500)
        consumer = asyncio.create_task(collected(results))
        await turns(3)
        consumer.cancel()
        seen, error = await consumer
    assert isinstance(error, asyncio.CancelledError)
    assert seen == list(range(1, 1 + len(seen)))
    assert 0 < len(seen) < 499


# ---- batches


async def test_the_default_window_fills_batches(gate: Gate) -> None:
    director = Director("simulated:1")

    @director.function(max_batch_size=100)
    def together(device: Any, items: list[int]) -> list[int]:
        gate(device, len(items))
        return items

    async with director:
        results = together.map(itertools.count())
        first = asyncio.create_task(anext(results))
        await gate.begun()
        await turns()
        gate.open()
        assert await first == 0
        for number in range(1, 250):
            assert await anext(results) == number
        await results.aclose()
    assert gate.items[1] == 100
