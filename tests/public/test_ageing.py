"""Ageing: who has waited so long goes before all others, whatever stands in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, turns, until

from director import Director, JobState, Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director.testing import TestClock


class Line:
    """One slot that is held until everybody stands in line, and the order in which they are served then."""

    def __init__(self, clock: TestClock, **options: Any) -> None:
        self.clock = clock
        self.director = Director("simulated:1", clock=clock, max_queue=None, **options)
        self.served: list[Any] = []
        self._gate = Gate()

    async def hold(self) -> None:
        """Take the slot."""
        self.director.submit(self._gate)
        await self._gate.begun()

    def add(self, name: Any, **options: Any) -> asyncio.Future[Any]:
        return self.director.submit(self._serve, name, **options)

    def _serve(self, _: object, name: Any) -> None:
        self.served.append(name)

    async def order(self) -> list[Any]:
        """Let all of them run."""
        self._gate.let(1)
        await until(lambda: self.director.stats().queued == 0 and not self.director.stats().running)
        return self.served


@pytest.fixture
async def line(clock: TestClock) -> AsyncIterator[Line]:
    line = Line(clock, ageing=10.0)
    async with line.director:
        await line.hold()
        yield line


async def test_without_the_word_nobody_grows_old(clock: TestClock) -> None:
    line = Line(clock)
    async with line.director:
        await line.hold()
        line.add("low", priority=-1)
        clock.advance(1e6)
        line.add("high", priority=1)
        assert await line.order() == ["high", "low"]


async def test_who_has_waited_so_long_goes_before_all_others(line: Line) -> None:
    line.add("low", priority=-5)
    line.clock.advance(10.0)
    line.add("high", priority=5)
    line.add("urgent", priority=5, deadline=1.0)
    assert await line.order() == ["low", "urgent", "high"]


async def test_who_has_waited_a_little_less_does_not(line: Line) -> None:
    line.add("low", priority=-5)
    line.clock.advance(9.999)
    line.add("high", priority=5)
    assert await line.order() == ["high", "low"]


async def test_among_the_old_the_oldest_is_first(line: Line) -> None:
    for number in range(6):
        line.add(number, priority=number % 3, tenant=number % 2)
        line.clock.advance(1.0)
    line.clock.advance(10.0)
    line.add("young", priority=9)
    assert await line.order() == [0, 1, 2, 3, 4, 5, "young"]


async def test_who_has_aged_goes_before_those_of_poorer_tenants(clock: TestClock) -> None:
    line = Line(clock, ageing=10.0)
    async with line.director:
        await line.hold()
        line.add("old", tenant="rich")
        clock.advance(10.0)
        for number in range(3):
            line.add(number, tenant=number)
        assert (await line.order())[0] == "old"


async def test_a_batch_begins_with_the_one_that_has_aged(line: Line) -> None:
    batches: list[list[str]] = []

    def many(_: object, items: list[str]) -> list[str]:
        batches.append(items)
        return items

    function = line.director.function(many, max_batch_size=2)
    low, high = (function.with_options(priority=priority) for priority in (-1, 1))
    jobs = [low.submit("old")]
    line.clock.advance(10.0)
    jobs += [high.submit(name) for name in "abc"]
    await line.order()
    await asyncio.gather(*jobs)
    assert batches == [["old", "a"], ["b", "c"]]


async def test_the_time_in_a_held_group_counts(line: Line) -> None:
    """Though others came into line while it was held."""
    function = line.director.function(line._serve, max_batch_size=2, max_wait=6.0)
    job = function.submit("held")  # _serve notes the list
    line.clock.advance(3.0)
    line.add("young")
    line.clock.advance(3.0)
    line.clock.advance(4.0)
    line.add("high", priority=5)
    await turns()
    assert await line.order() == [["held"], "high", "young"]
    assert job.exception() is not None  # it returned no list


async def test_the_time_before_a_second_try_counts(clock: TestClock) -> None:
    order: list[str] = []
    gate = Gate()

    def note(_: object, name: str) -> None:
        order.append(name)
        if order == ["again"]:
            raise OSError

    async with Director("simulated:1", clock=clock, ageing=10.0) as director:
        again = director.submit(note, "again", retries=1, retry_on=OSError, backoff=1.0)
        await until(lambda: again.attempts == 1 and again.state is JobState.QUEUED)
        clock.advance(0.5)
        blocker = director.submit(gate)
        await gate.begun()
        young = director.submit(note, "young")
        clock.advance(9.5)  # again is ten seconds old, young nine and a half
        high = director.submit(note, "high", priority=5)
        gate.open()
        await asyncio.gather(again, blocker, young, high)
    assert order == ["again", "again", "high", "young"]


async def test_devices_and_models_are_kept_to(clock: TestClock) -> None:
    """Age helps to a turn, not to another device."""
    gates = [Gate(), Gate()]
    served: list[tuple[str, int]] = []

    def note(replica: Any, name: str) -> None:
        served.append((name, replica.index))

    async with Director("simulated:2", clock=clock, ageing=10.0) as director:
        model = Model(lambda device: device, devices=1)
        for index, gate in enumerate(gates):
            director.submit(gate, devices=index)
            await gate.begun()
        jobs = [director.submit(note, "old", model=model, priority=-1)]
        clock.advance(10.0)
        jobs += [director.submit(note, "young", devices=index, priority=1) for index in (0, 1)]
        gates[0].open()
        await jobs[1]
        gates[1].open()
        await asyncio.gather(*jobs)
    assert served == [("young", 0), ("old", 1), ("young", 1)]


async def test_who_leaves_leaves_also_the_line_of_the_old(line: Line) -> None:
    jobs = [line.add(number, priority=-1) for number in range(300)]
    line.clock.advance(10.0)
    for job in jobs[:299]:
        job.cancel()
    line.add("young")
    assert await line.order() == [299, "young"]


async def test_under_lasting_overload_the_order_is_that_of_arrival(line: Line) -> None:
    names = [line.add(number, priority=number % 4) and number for number in range(40)]
    line.clock.advance(11.0)
    assert await line.order() == list(range(len(names)))


async def test_a_deadline_is_kept_to_all_the_same(line: Line) -> None:
    """One that has aged and is too late is not run."""
    job = line.add("late", deadline=10.5)
    line.clock.advance(10.5)
    line.add("young")
    assert await line.order() == ["young"]
    assert job.exception() is not None
