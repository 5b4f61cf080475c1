"""`function(max_batch_size=...)`: single items in, batches to the function, each item's own outcome back."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, ThreadClock, outcome, turns, until

from director import (
    BatchMismatch,
    Director,
    JobState,
    JobTimeout,
    Model,
    check_cancelled,
    current_job,
)
from director.events import JobStarted
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Callable


def double(_device: Any, items: list[int]) -> list[int]:
    return [2 * item for item in items]


class Busy:
    """A Director of one slot that is taken, and a function of batches whose items wait behind that."""

    def __init__(self, director: Director, gate: Gate, blocker: Gate) -> None:
        self.director = director
        self.gate = gate
        self.blocker = blocker

    def batches(self, **options: Any) -> Any:
        return self.director.function(self.gate, **{"max_batch_size": 4, **options})

    async def begin(self) -> None:
        """Take the slot."""
        self.director.submit(self.blocker)
        await self.blocker.begun()

    async def go_on(self, count: int) -> list[Any]:
        """Let the slot go, and so many calls; returns their lists."""
        self.blocker.open()
        for _ in range(count):
            await self.gate.begun()
            self.gate.let(1)
        return self.gate.items


@pytest.fixture
async def busy(gate: Gate, clock: TestClock) -> Any:
    blocker = Gate()
    async with Director("simulated:1", clock=clock, max_queue=None) as director:
        made = Busy(director, gate, blocker)
        await made.begin()
        yield made
        blocker.open()
        gate.open()


# ---- what callers get


async def test_a_caller_gives_one_item_and_gets_its_own_result() -> None:
    async with Director("simulated:2") as director:
        doubled = director.function(double, max_batch_size=3)
        assert await doubled(1) == 2
        assert await asyncio.gather(*map(doubled, range(10))) == [2 * item for item in range(10)]
        assert [each async for each in doubled.map(range(10))] == [2 * item for item in range(10)]


@pytest.mark.parametrize("make", [tuple, list, range], ids=lambda make: make.__name__)
async def test_any_sequence_of_the_right_length_is_good(make: Callable[[Any], Any]) -> None:
    async with Director("simulated:1") as director:
        same = director.function(lambda _, items: make(len(items)) if make is range else make(items), max_batch_size=4)
        assert await same(0) == 0


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([], "0 results"),
        ([1, 2], "2 results"),
        (None, "a NoneType"),
        ("x", "a str"),
        ({1: 2}, "a dict"),
        (iter([1]), "a list_iterator"),
    ],
)
async def test_another_number_of_results_fails_the_batch(returned: Any, said: str) -> None:
    async with Director("simulated:1") as director:
        wrong = director.function(lambda _device, _items: returned, max_batch_size=4, name="wrong")
        with pytest.raises(BatchMismatch, match=f"got a batch of 1 items and returned {said}") as caught:
            await wrong("item")
        assert (caught.value.size, caught.value.returned) == (1, said)
        assert director.stats().failed == 1


async def test_a_wrong_length_fails_every_item_and_no_other_batch(busy: Busy) -> None:
    short = busy.director.function(lambda _, items: items[1:], max_batch_size=3)
    fine = busy.director.function(double, max_batch_size=3)
    failing, others = [short.submit(number) for number in range(3)], [fine.submit(number) for number in range(3)]
    await busy.go_on(0)
    assert [type(await outcome(job)) for job in failing] == [BatchMismatch] * 3
    assert await asyncio.gather(*others) == [0, 2, 4]


async def test_an_exception_in_the_place_of_a_result_fails_that_item_alone(busy: Busy) -> None:
    def roots(_device: Any, items: list[int]) -> list[Any]:
        return [ValueError(f"{item} has no root") if item < 0 else item**0.5 for item in items]

    rooted = busy.director.function(roots, max_batch_size=4)
    jobs = [rooted.submit(item) for item in (4, -1, 9, 16)]
    await busy.go_on(0)
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [results[at] for at in (0, 2, 3)] == [2, 3, 4]
    assert repr(results[1]) == "ValueError('-1 has no root')"
    assert [job.state for job in jobs].count(JobState.FAILED) == 1


async def test_what_the_function_raises_fails_all_its_items(busy: Busy) -> None:
    error = RuntimeError("out of luck")

    def fail(_device: Any, _items: list[int]) -> list[int]:
        raise error

    failing = busy.director.function(fail, max_batch_size=4)
    jobs = [failing.submit(number) for number in range(6)]
    await busy.go_on(0)
    assert [await outcome(job) for job in jobs] == [error] * 6
    assert busy.director.stats().failed == 6


async def test_a_bad_item_fails_alone_when_failures_are_isolated(busy: Busy) -> None:
    calls: list[list[int]] = []

    def inverse(_device: Any, items: list[int]) -> list[float]:
        calls.append(items)
        return [1 / item for item in items]

    inverted = busy.director.function(inverse, max_batch_size=4, isolate_failures=True)
    jobs = [inverted.submit(item) for item in (1, 2, 0, 4)]
    await busy.go_on(0)
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [results[at] for at in (0, 1, 3)] == [1, 0.5, 0.25]
    assert isinstance(results[2], ZeroDivisionError)
    assert calls == [[1, 2, 0, 4], [1], [2], [0], [4]]


async def test_the_function_gets_a_list_also_of_one() -> None:
    seen: list[Any] = []

    def same(device: Any, items: list[int]) -> list[int]:
        seen.append((device, items))
        return items

    async with Director("simulated:1") as director:
        assert await director.function(same, max_batch_size=1)(7) == 7
        assert seen == [(director.devices[0], [7])]


async def test_with_a_model_the_replica_comes_first() -> None:
    model = Model(lambda device: f"replica on {device.index}")

    def tell(replica: str, items: list[int]) -> list[str]:
        return [f"{item} by {replica}" for item in items]

    async with Director("simulated:1") as director:
        assert await director.function(tell, model=model, max_batch_size=4)(1) == "1 by replica on 0"


# ---- what shares a batch


async def test_a_batch_is_formed_when_a_slot_takes_it(busy: Busy) -> None:
    same = busy.batches()
    jobs = [same.submit(number) for number in range(9)]
    assert await busy.go_on(3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert await asyncio.gather(*jobs) == list(range(9))


async def test_a_batch_waits_for_nobody_while_a_slot_is_free(gate: Gate) -> None:
    async with Director("simulated:3") as director:
        same = director.function(gate, max_batch_size=8)
        for number in range(3):
            same.submit(number)
            await gate.begun()
        assert gate.items == [[0], [1], [2]]
        gate.open()


async def test_keys_never_mix(busy: Busy) -> None:
    same = busy.batches(batch_key=len)
    for word in ("a", "bb", "c", "dd", "e", "fff", "gg"):
        same.submit(word)
    assert await busy.go_on(3) == [["a", "c", "e"], ["bb", "dd", "gg"], ["fff"]]


async def test_functions_never_mix(busy: Busy) -> None:
    one, other = busy.batches(), busy.batches()
    for number in range(4):
        (one if number % 2 else other).submit(number)
    assert await busy.go_on(2) == [[0, 2], [1, 3]]


async def test_other_options_of_the_same_function_share_only_what_slots_share(busy: Busy) -> None:
    """Priority is the item's own; it orders the batch and does not split it."""
    same = busy.batches()
    low = [same.submit(number) for number in range(2)]
    single = busy.director.submit(busy.gate, "single", priority=1)
    assert await busy.go_on(2) == ["single", [0, 1]]
    await asyncio.gather(*low, single)


async def test_single_calls_and_batches_take_turns_by_arrival(busy: Busy) -> None:
    same = busy.batches()
    same.submit(0)
    busy.director.submit(busy.gate, "single")
    same.submit(1)
    assert await busy.go_on(2) == [[0, 1], "single"]


async def test_the_sum_of_costs_is_bounded(busy: Busy) -> None:
    same = busy.batches(batch_cost=len, max_batch_cost=5)
    for word in ("aa", "bb", "cc", "d", "eeeeeeee", "f"):
        same.submit(word)
    assert await busy.go_on(4) == [["aa", "bb"], ["cc", "d"], ["eeeeeeee"], ["f"]]


async def test_the_padded_cost_is_bounded(busy: Busy) -> None:
    same = busy.batches(batch_cost=len, max_batch_cost=6, batch_padding=True)
    for word in ("aa", "b", "c", "d", "eee", "ffffffff"):
        same.submit(word)
    assert await busy.go_on(3) == [["aa", "b", "c"], ["d", "eee"], ["ffffffff"]]


async def test_within_a_window_items_of_like_cost_go_together(busy: Busy) -> None:
    """The first one always goes, so nobody is overtaken for ever."""
    same = busy.batches(batch_cost=len, batch_window=3, max_batch_size=2)
    for word in ("a", "bbbb", "c", "dddd", "e"):
        same.submit(word)
    assert await busy.go_on(3) == [["a", "c"], ["bbbb", "dddd"], ["e"]]


# ---- waiting for company


async def test_max_wait_is_counted_from_the_oldest_item(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        same = director.function(gate, max_batch_size=4, max_wait=1.0)
        same.submit("a")
        await turns()
        clock.advance(0.9)
        same.submit("b")
        await turns()
        clock.advance(0.0999)
        await turns()
        assert gate.calls == []
        clock.advance(0.0001)
        await gate.begun()
        assert gate.items == [["a", "b"]]
        gate.open()


async def test_a_full_batch_does_not_wait(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        same = director.function(gate, max_batch_size=2, max_wait=10.0)
        for item in "abc":
            same.submit(item)
        await gate.begun()
        assert gate.items == [["a", "b"]]
        gate.let(1)
        await director.run(lambda _: None)  # passes the one that is left, which is held for company
        assert gate.items == [["a", "b"]]
        clock.advance(10.0)
        await gate.begun()
        assert gate.items == [["a", "b"], ["c"]]
        gate.open()


async def test_a_cost_that_is_reached_does_not_wait(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        same = director.function(gate, max_batch_size=99, batch_cost=len, max_batch_cost=4, max_wait=10.0)
        same.submit("aa")
        same.submit("bb")
        await gate.begun()
        assert gate.items == [["aa", "bb"]]
        gate.open()


async def test_while_a_batch_is_held_others_use_the_slot(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        held = director.function(gate, max_batch_size=4, max_wait=10.0).submit("held")
        assert await director.run(lambda _: "at once") == "at once"
        assert held.state is JobState.QUEUED
        clock.advance(10.0)
        gate.open()
        assert await held == "held"


async def test_a_held_item_can_be_cancelled_and_its_batch_waits_from_the_next(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        same = director.function(gate, max_batch_size=4, max_wait=1.0)
        first = same.submit("a")
        clock.advance(0.5)
        same.submit("b")
        assert first.cancel()
        clock.advance(0.6)
        await turns()
        assert gate.calls == []
        clock.advance(0.4)
        await gate.begun()
        assert gate.items == [["b"]]
        gate.open()


@pytest.mark.parametrize("how", ["drain", "close"])
async def test_winding_up_holds_nothing_back(gate: Gate, clock: TestClock, how: str) -> None:
    """Neither the batch that is held nor what it leaves behind."""
    blocker = Gate()
    async with Director("simulated:1", clock=clock) as director:
        director.submit(blocker)
        await blocker.begun()
        same = director.function(gate, max_batch_size=4, max_wait=3600.0, batch_key=type)
        jobs = [same.submit(item) for item in (1, 2, 3, 4, 5, "held")]
        closing = asyncio.create_task(director.drain() if how == "drain" else director.close())
        await turns()
        blocker.open()
        gate.open()
        await closing
        assert await asyncio.gather(*jobs) == [1, 2, 3, 4, 5, "held"]
    assert gate.items == [[1, 2, 3, 4], [5], ["held"]]


async def test_a_deadline_ends_the_wait_while_there_is_time_for_one_item_more(clock: TestClock) -> None:
    began: list[float] = []

    def work(_device: Any, items: list[str]) -> list[str]:
        began.append(clock.time())
        clock._now += 1.0 + 0.5 * len(items)
        return items

    async with Director("simulated:1", clock=clock) as director:
        function = director.function(work, max_batch_size=4, max_wait=10.0, deadline=5.0)
        await asyncio.gather(*(function.submit(item) for item in "full"))
        assert began == [0.0]
        await alone(function, clock, 5.0 - 2 * 0.75)  # calls of four take 3 s: two are thought to take half of it
        await alone(function, clock, 5.0 - 2.0)  # and now it is known what each item adds


async def alone(function: Any, clock: TestClock, held: float) -> None:
    """Submit an item that is held so long, but for a leeway and the margin of what calls cost, then runs."""
    job = function.submit("alone")
    await turns()
    clock.advance(0.8 * held)
    await turns()
    assert job.state is JobState.QUEUED
    clock.advance(0.2 * held)
    assert await job == "alone"


# ---- who leaves


async def test_cancelling_one_of_four_never_touches_the_others(busy: Busy) -> None:
    same = busy.batches()
    jobs = [same.submit(number) for number in range(4)]
    jobs[1].cancel()
    assert await busy.go_on(1) == [[0, 2, 3]]
    assert [await outcome(jobs[at]) for at in (0, 2, 3)] == [0, 2, 3]
    assert jobs[1].cancelled()


async def test_cancelling_one_of_four_that_run_never_touches_the_others(gate: Gate, busy: Busy) -> None:
    same = busy.batches()
    jobs = [same.submit(number) for number in range(4)]
    busy.blocker.open()
    await gate.begun()
    assert jobs[2].cancel()
    assert jobs[2].state is JobState.CANCELLED
    assert [job.state for job in jobs].count(JobState.RUNNING) == 3
    gate.open()
    assert [await outcome(jobs[at]) for at in (0, 1, 3)] == [0, 1, 3]
    assert busy.director.stats().cancelled == 1


class BetweenSteps(ThreadClock):
    """Stops a slot's thread between two steps, which is where it asks for the time without the lock."""

    director: Director

    def time(self) -> float:
        runtime = self.director._runtime if hasattr(self, "director") else None
        return TestClock.time(self) if runtime is None or runtime.scheduler._is_deciding else super().time()


async def test_an_item_that_is_cancelled_when_its_batch_has_been_taken_is_not_in_the_call(gate: Gate) -> None:
    clock = BetweenSteps()
    blocker = Gate()
    async with Director("simulated:1", clock=clock) as director:
        director.submit(blocker)
        await blocker.begun()
        same = director.function(gate, max_batch_size=4)
        jobs = [same.submit(number) for number in range(3)]
        clock.director = director
        clock.hold()
        blocker.open()
        for _ in ("the end of the blocker", "before the lock"):
            await asyncio.to_thread(clock.asked.wait, PATIENCE)
            clock.asked.clear()
            clock.let()
        await until(lambda: jobs[1].state is JobState.RUNNING)
        assert jobs[1].cancel()
        clock.release()
        gate.open()
        assert await asyncio.gather(jobs[0], jobs[2]) == [0, 2]
    assert gate.items == [[0, 2]]


async def test_the_call_is_asked_to_stop_when_nobody_waits_any_more(busy: Busy) -> None:
    steps, checked, stopped = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def work(_device: Any, items: list[int]) -> list[int]:
        for _ in range(3):
            assert steps.acquire(timeout=PATIENCE)
            try:
                check_cancelled()
            except BaseException:
                stopped.set()
                raise
            finally:
                checked.release()
        return items

    async def step() -> None:
        steps.release()
        assert await asyncio.to_thread(checked.acquire, timeout=PATIENCE)

    same = busy.director.function(work, max_batch_size=2)
    jobs = [same.submit(number) for number in range(2)]
    busy.blocker.open()
    await step()
    jobs[0].cancel()
    await step()
    assert not stopped.is_set()
    jobs[1].cancel()
    await step()
    assert stopped.is_set()


async def test_an_awaiter_who_leaves_takes_only_his_item_along(busy: Busy) -> None:
    same = busy.batches()
    tasks = [asyncio.create_task(same(number)) for number in range(3)]
    await turns()
    tasks[0].cancel()
    await turns()
    assert await busy.go_on(1) == [[1, 2]]
    assert await asyncio.gather(*tasks[1:]) == [1, 2]


async def test_an_item_whose_deadline_passes_leaves_the_batch(busy: Busy, clock: TestClock) -> None:
    hasty, same = busy.batches(deadline=1.0), busy.batches()
    late, other = hasty.submit("late"), same.submit("other")
    clock.advance(1.0)
    assert await busy.go_on(1) == [["other"]]
    error = await outcome(late)
    assert isinstance(error, JobTimeout)
    assert error.phase == "queued"
    assert await other == "other"


# ---- deadlines and what calls cost


async def test_what_calls_cost_is_told(clock: TestClock) -> None:
    def work(_device: Any, items: list[int]) -> list[int]:
        clock._now += 1.0 + 0.5 * len(items)  # the only thread that moves the time
        return items

    async with Director("simulated:1", clock=clock) as director:
        function = director.function(work, max_batch_size=4, name="work")
        await function(1)
        async with director.lease():
            jobs = [function.submit(number) for number in range(4)]
        await asyncio.gather(*jobs)
        await director.run(lambda _: None)  # the call is settled when the slot takes the next one
        (told,) = director.stats().functions
        assert (told.name, told.device, told.calls, told.items) == ("work", director.devices[0], 2, 5)
        assert (told.fixed_seconds, told.seconds_per_item) == pytest.approx((1.0, 0.5))


async def test_a_batch_grows_only_as_far_as_its_tightest_deadline_allows(clock: TestClock) -> None:
    sizes: list[int] = []

    def work(_device: Any, items: list[int]) -> list[int]:
        clock._now += 1.0 + len(items)
        sizes.append(len(items))
        return items

    async with Director("simulated:1", clock=clock) as director:
        pressed = director.function(work, max_batch_size=8, deadline=5.5)
        for count in (1, 2):
            async with director.lease():
                jobs = [pressed.submit(number) for number in range(count)]
            await asyncio.gather(*jobs)
        async with director.lease():
            jobs = [pressed.submit(number) for number in range(6)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert sizes == [1, 2, 4]
        assert results[:4] == [0, 1, 2, 3]
        assert [type(each) for each in results[4:]] == [JobTimeout] * 2
        assert [each.phase for each in results[4:]] == ["queued"] * 2  # failed at once: alone they'd need 2 s


# ---- what hooks and handles see


async def test_each_item_is_a_job_of_its_own(busy: Busy) -> None:
    seen: list[Any] = []

    def work(_device: Any, items: list[int]) -> list[int]:
        seen.append(current_job())
        return items

    function = busy.director.function(work, max_batch_size=3, name="work", priority=3, tenant="a")
    jobs = [function.submit(number) for number in range(3)]
    await busy.go_on(0)
    await asyncio.gather(*jobs)
    assert [job.id for job in jobs] == [2, 3, 4]
    assert {(job.name, job.priority, job.tenant, job.attempts, job.device) for job in jobs} == {
        ("work", 3, "a", 1, busy.director.devices[0])
    }
    assert len({job.ran for job in jobs}) == 1
    assert seen == [jobs[0]]


async def test_hooks_learn_the_size_of_the_batch(gate: Gate, recorder: Recorder) -> None:
    blocker = Gate()
    async with Director("simulated:1", hooks=[recorder]) as director:
        director.submit(blocker)
        await blocker.begun()
        same = director.function(gate, max_batch_size=2)
        jobs = [same.submit(number) for number in range(3)]
        blocker.open()
        gate.open()
        await asyncio.gather(*jobs)
    assert [event.batch for event in recorder.of(JobStarted)] == [1, 2, 2, 1]


@pytest.mark.usefixtures("no_gc")
async def test_items_are_let_go_when_their_batch_is_over() -> None:
    class Item:
        pass

    async with Director("simulated:1") as director:
        function = director.function(lambda _, items: [None] * len(items), max_batch_size=4)
        item = Item()
        kept = weakref.ref(item)
        job = function.submit(item)
        del item
        await job
        await director.run(lambda _: None)
        assert kept() is None


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_batch_size": 0}, ValueError),
        ({"max_batch_size": 1.5}, TypeError),
        ({"max_batch_size": True}, TypeError),
        ({"max_wait": 1.0}, ValueError),
        ({"max_batch_size": 2, "max_wait": -1.0}, ValueError),
        ({"max_batch_size": 2, "max_wait": float("nan")}, ValueError),
        ({"max_batch_size": 2, "batch_key": "x"}, TypeError),
        ({"max_batch_size": 2, "batch_cost": 1}, TypeError),
        ({"max_batch_size": 2, "max_batch_cost": 1.0}, ValueError),
        ({"max_batch_size": 2, "batch_cost": len, "max_batch_cost": 0}, ValueError),
        ({"max_batch_size": 2, "batch_window": 0}, ValueError),
    ],
    ids=str,
)
async def test_options_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(error):
            director.function(double, **options)


@pytest.mark.parametrize("option", ["max_batch_size", "max_wait", "batch_key", "batch_cost", "isolate_failures"])
async def test_a_single_call_has_no_batch(option: str) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match=option):
            director.submit(double, 1, **{option: 1})


async def test_what_key_and_cost_raise_reaches_the_submitter() -> None:
    async with Director("simulated:1") as director:
        function = director.function(double, max_batch_size=2, batch_key=lambda item: item.shape)
        with pytest.raises(AttributeError, match="shape"):
            function.submit(1)
        with pytest.raises(AttributeError, match="shape"):
            await function(1)
        assert director.stats().queued == 0


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"batch_key": lambda _: []}, TypeError, "hashable"),
        ({"batch_cost": lambda _: "1"}, TypeError, "number"),
        ({"batch_cost": lambda _: -1}, ValueError, "from 0 to"),
        ({"batch_cost": lambda _: float("inf")}, ValueError, "from 0 to"),
    ],
)
async def test_bad_keys_and_costs_say_so(options: dict[str, Any], error: type[Exception], said: str) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(error, match=said):
            director.function(double, max_batch_size=2, **options).submit(1)


@pytest.mark.parametrize("args", [(), (1, 2)])
async def test_a_call_takes_one_item(args: tuple[int, ...]) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="one item"):
            director.function(double, max_batch_size=2).submit(*args)
