"""Groups that are held for fuller batches: when they go, in which order, and what they keep alive."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from typing import Any

import pytest
from harness.desk import CANCELLED, Desk

from director._jobs.job import JobExtras, ScheduledJob
from director._jobs.options import BatchRule, Options

MakeStage = "Callable[..., Awaitable[Stage]]"
PATIENCE = 20.0


def rule(**words: Any) -> BatchRule:
    """A new function of batches."""
    return BatchRule("f", **{"max_size": 4, "max_wait": 5.0, **words})


def learn(desk: Desk, rule: BatchRule, seconds: float, size: int = 1) -> None:
    """A call has been measured on every device."""
    for place in desk.places:
        desk.scheduler._accounting.costs.add(rule, place, size, seconds)


def is_called(desk: Desk) -> bool:
    """Somebody is on the way to look for work."""
    return bool(desk.director_called or desk.on_their_way())


def run_all(desk: Desk) -> list[list[ScheduledJob[Any]]]:
    """Let the one slot run everything that can be taken now; returns the calls."""
    (slot,) = desk.slots
    calls = []
    desk.settle()
    while slot.job is not None:
        calls.append(desk.end(slot))
        desk.take(slot)
    return calls


@pytest.fixture
def desk() -> Desk:
    return Desk([1])


# ---- when they go


def test_the_oldest_item_counts_though_it_came_last(desk: Desk) -> None:
    """One that is tried again has been submitted before those who wait."""
    options = Options(batch_rule=rule())
    (slot,) = desk.slots
    first = desk.admit(options)
    desk.advance(5.0)
    desk.settle()
    assert slot.job is first
    second = desk.admit(options)
    desk.fail(slot)
    desk.take(slot)
    assert not is_called(desk)
    desk.try_again(first)
    assert run_all(desk) == [[first, second]]


def test_a_deadline_presses(desk: Desk) -> None:
    function = rule()
    learn(desk, function, 1.0)
    desk.admit(Options(batch_rule=function))
    desk.advance(0.5)
    desk.admit(Options(batch_rule=function, deadline=4.0))  # a call with one more takes three seconds
    assert not is_called(desk)
    desk.advance(0.5)
    assert not is_called(desk)
    desk.advance(0.6)
    assert [len(call) for call in run_all(desk)] == [2]


def test_a_deadline_of_one_that_has_gone_presses_no_more(desk: Desk) -> None:
    function = rule()
    learn(desk, function, 1.0)
    desk.admit(Options(batch_rule=function))
    gone = desk.admit(Options(batch_rule=function, deadline=4.0))
    desk.scheduler.remove(gone, CANCELLED)
    desk.advance(4.9)
    assert not is_called(desk)
    desk.advance(0.2)
    assert is_called(desk)


def test_a_pressing_deadline_leaves_time_for_calls_that_take_longer_than_usual(desk: Desk) -> None:
    """As long as two standard deviations, by which a batch is cut too; else it would go late and be cut."""
    function = rule()
    for number in range(100):
        learn(desk, function, 1.0 + 0.2 * (number % 2 * 2 - 1))
    jobs = [desk.admit(Options(batch_rule=function, deadline=5.0)) for _ in range(2)]
    desk.advance(1.5)  # 5.0 - 3 * 1.0 would be half a second later
    assert not is_called(desk)
    desk.advance(0.3)
    assert run_all(desk) == [jobs]


def test_a_deadline_that_presses_leaves_time_to_wake_up(desk: Desk) -> None:
    """Timers, threads and a busy loop are late by some milliseconds; what takes no longer for more must not miss."""
    function = rule()
    for size in (1, 2, 3, 4):
        learn(desk, function, 1.0, size)
    job = desk.admit(Options(batch_rule=function, deadline=3.0))
    desk.advance(3.0 - 1.0 - 0.005)
    assert is_called(desk)
    desk.now += 0.002
    assert run_all(desk) == [[job]]


def test_padding_makes_a_batch_full(desk: Desk) -> None:
    """When not even one more as dear as the dearest would fit."""
    function = rule(max_size=10, max_cost=20.0, padded=True)
    jobs = [desk.admit(Options(batch_rule=function), extra=JobExtras(None, 1.0))]
    assert not is_called(desk)
    jobs.append(desk.admit(Options(batch_rule=function), extra=JobExtras(None, 9.0)))
    assert run_all(desk) == [jobs]


def test_what_padding_has_filled_is_forgotten_with_the_item_that_was_cancelled(desk: Desk) -> None:
    function = rule(max_size=10, max_cost=20.0, padded=True)
    dear = desk.admit(Options(batch_rule=function), extra=JobExtras(None, 9.0))
    desk.scheduler.remove(dear, CANCELLED)
    for _ in range(3):
        desk.admit(Options(batch_rule=function), extra=JobExtras(None, 1.0))
    assert not is_called(desk)


# ---- in which order


def test_released_items_keep_their_place_among_others(desk: Desk) -> None:
    """First come, first served, once they may be served."""
    (slot,) = desk.slots
    blocker = desk.admit()
    desk.settle()
    function = rule()
    held = desk.admit(Options(batch_rule=function))
    desk.now = 1.0
    single = desk.admit(Options(timeout=1.0, tenant="a", allowed=None))
    desk.scheduler.remove(single, CANCELLED)
    later = desk.admit()
    desk.advance(5.0)
    assert run_all(desk) == [[blocker], [held], [later]]
    assert slot.job is None


def test_one_that_is_tried_again_goes_before_its_equals_when_its_group_is_released(desk: Desk) -> None:
    (slot,) = desk.slots
    function = rule(max_size=1)
    first = desk.admit(Options(batch_rule=function))
    desk.settle()
    assert slot.job is first
    others = [desk.admit(Options(batch_rule=function)) for _ in range(2)]
    desk.fail(slot)
    desk.try_again(first)
    desk.take(slot)
    assert slot.job is first
    assert run_all(desk) == [[first], *([job] for job in others)]


def test_several_that_are_tried_again_keep_their_order(desk: Desk) -> None:
    (slot,) = desk.slots
    desk.admit(Options(priority=1))
    jobs = [desk.admit() for _ in range(4)]
    desk.settle()
    desk.end(slot)
    for job in jobs[:2]:
        assert desk.take(slot) is job
        desk.fail(slot)
    blocker = desk.take(slot)
    for job in jobs[:2]:
        desk.try_again(job)
    assert run_all(desk) == [[blocker], [jobs[0]], [jobs[1]], [jobs[3]]]


# ---- what they keep alive


def admit_many(desk: Desk, options: Options, count: int) -> weakref.WeakSet[ScheduledJob[Any]]:
    return weakref.WeakSet([desk.admit(options) for _ in range(count)])


def settled(desk: Desk) -> None:
    """Everything has run, and whoever was cleared away behind it is gone."""
    run_all(desk)
    desk.slots[0].job, desk.slots[0].batch = None, None
    gc.collect()


def test_nothing_of_a_batch_that_has_gone_is_kept_until_it_would_have_been_ripe(desk: Desk) -> None:
    function = rule(max_wait=3600.0)
    alive = admit_many(desk, Options(batch_rule=function), 4)
    settled(desk)
    assert not alive


def test_keys_that_have_gone_do_not_pile_up_until_they_would_have_been_ripe(desk: Desk) -> None:
    class Key:
        pass

    alive: weakref.WeakSet[Key] = weakref.WeakSet()
    function = rule(max_size=1, max_wait=3600.0)
    held = Options(batch_rule=rule(max_wait=3600.0))
    desk.admit(held)
    for _ in range(1000):
        key = Key()
        alive.add(key)
        desk.admit(Options(batch_rule=function), extra=JobExtras(key))
        job = desk.admit(held, extra=JobExtras(key))
        desk.scheduler.remove(job, CANCELLED)
        del key, job
        run_all(desk)
    settled(desk)
    assert len(alive) < 150


@pytest.mark.parametrize("pressed", [False, True])
def test_those_who_overtake_an_item_are_not_kept_until_it_has_gone(desk: Desk, pressed: bool) -> None:
    """In the order of arrival, and in that of deadlines, by which a held group is ripe, it stands before them."""
    function = rule(max_size=2, max_wait=3600.0)
    learn(desk, function, 0.1)
    low = desk.admit(Options(batch_rule=function, priority=-1, deadline=1800.0 if pressed else None))
    alive: weakref.WeakSet[ScheduledJob[Any]] = weakref.WeakSet()
    for _ in range(1000):
        for _ in range(2):
            alive.add(desk.admit(Options(batch_rule=function, deadline=3600.0)))
        assert [len(call) for call in run_all(desk)] == [2]
    settled(desk)
    assert len(alive) < 150
    desk.advance(1799.85 if pressed else 3600.0)
    assert run_all(desk) == [[low]]


# ---- seen from outside


async def test_drain_and_close_let_go_of_what_would_wait_for_ever(make_stage: MakeStage) -> None:
    stage = await make_stage()
    gate = stage.gate()
    job = stage.director.function(gate, max_batch_size=4, max_wait=math.inf).submit("item")
    await stage.quiet()
    assert gate.calls == 0
    draining = asyncio.ensure_future(stage.director.drain())
    await stage.quiet()
    gate.open(["done"])
    await asyncio.wait_for(draining, PATIENCE)
    assert await job == "done"


async def test_an_item_is_not_held_into_its_deadline_while_nothing_is_known_of_its_function(
    make_stage: MakeStage,
) -> None:
    """The slot is free all the time: it must not fail for lack of it."""
    stage = await make_stage()
    gate = stage.gate()
    job = stage.director.function(gate, max_batch_size=4, max_wait=2.0, deadline=1.0).submit("item")
    await stage.quiet()
    gate.open(["done"])
    await stage.quiet()
    assert job.done()
    assert await job == "done"


async def test_the_earliest_ripening_is_kept_in_whatever_order_threads_ask_for_it(make_stage: MakeStage) -> None:
    stage = await make_stage()
    runtime = stage.director._runtime
    assert runtime is not None
    gate = stage.gate()
    gate.open(["done"])
    job = stage.director.function(gate, max_batch_size=4, max_wait=1.0).submit("item")
    await stage.quiet()
    runtime._flush_timer.set(5.0)  # asked for by a thread before it, and brought to the loop after it
    await stage.advance(1.0)
    assert job.done()
