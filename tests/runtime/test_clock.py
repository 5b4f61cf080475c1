"""A clock may be the user's, so that it raises and calls the Director: it is never read under the scheduler's lock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness.desk import HIRED, IDLE, LEAVING, PARKED, QUEUED, RUNNING, WORKING, Desk
from harness.gates import Gate

from director import Director, Model
from director._jobs.options import Options
from director._scheduler.policy import SchedulingPolicy
from director._system.clock import MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)

RICH = Options(priority=1)


class Broken(Exception):
    """What a clock raises."""


class Curious(MonotonicClock):
    """Looks at the lock, and now and then submits a job, whenever it is asked for the time."""

    def __init__(self) -> None:
        self.look: Callable[[], object] | None = None
        self.is_looking = False
        self.time = self._time  # type: ignore[method-assign,assignment]

    def _time(self) -> float:
        if self.look is not None and not self.is_looking:
            self.is_looking = True
            try:
                self.look()
            finally:
                self.is_looking = False
        return time.monotonic()


def double(_resource: Any, value: int) -> int:
    return 2 * value


def doubles(_resource: Any, values: list[int]) -> list[int]:
    return [2 * value for value in values]


class Flaky:
    """Raises at its first call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _resource: Any) -> int:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError
        return self.calls


async def test_a_clock_is_read_without_the_lock_and_may_submit() -> None:
    clock = Curious()
    director, gate = Director("simulated:2", clock=clock, max_queue=None, ageing=60), Gate()
    await director.start()
    runtime = director._runtime
    assert runtime is not None
    lock: Any = runtime.scheduler._lock
    executor, more, looks = director.as_executor(), [], [0, 0]

    def look() -> None:
        looks[lock._is_owned()] += 1
        if len(more) < 200:
            more.append(executor.submit(int))

    clock.look = look
    model = Model(lambda _device: "replica")
    held = director.function(doubles, max_batch_size=3, max_wait=0.001, batch_key=lambda value: value % 2)
    jobs: list[Any] = [director.submit(gate)]
    for number in range(20):
        jobs.append(director.submit(double, number))
        jobs.append(director.submit(double, number, priority=number % 3, tenant=f"t{number % 2}", deadline=60))
        jobs.append(director.submit(double, number, model=model, devices=number % 2))
        jobs.append(held.submit(number))
        jobs.append(director.submit(Flaky(), retries=1, retry_on=ConnectionError, backoff=0.0))
    gate.open()
    async with asyncio.timeout(30):
        await asyncio.gather(*jobs)
        clock.look = None
        await asyncio.gather(*map(asyncio.wrap_future, more))
        await director.close()
    assert looks[False] > 100
    assert not looks[True], "the clock was called under the scheduler's lock"


# ---- one that raises


class Stopped(Desk):
    """A desk whose clock raises while it `is_broken`."""

    is_broken = False

    def _tell_time(self) -> float:
        if self.is_broken:
            raise Broken
        return super()._tell_time()

    def fails(self, step: Callable[[], object]) -> None:
        """Make a step in which the clock raises."""
        self.is_broken = True
        with pytest.raises(Broken):
            step()
        self.is_broken = False
        assert not self.scheduler._is_deciding


def test_a_worker_that_looks_for_work_is_where_it_was_if_the_clock_raises() -> None:
    desk = Stopped([1])
    job = desk.admit(RICH)
    [slot] = desk.hire()
    desk.fails(lambda: desk.scheduler.next_work(slot))
    assert (slot.state, job.state) == (HIRED, QUEUED)
    assert desk.take(slot) is job
    assert (slot.state, job.state) == (WORKING, RUNNING)


def test_nobody_is_hired_if_the_clock_raises() -> None:
    desk = Stopped([1])
    job = desk.admit(RICH)
    desk.fails(lambda: desk.scheduler.pick_slots_to_start(16))
    [slot] = desk.hire()
    assert desk.take(slot) is job


def test_a_slot_is_free_after_its_worker_though_the_clock_raises_and_the_director_is_called() -> None:
    desk = Stopped([1])
    first = desk.admit(RICH)
    [slot] = desk.hire()
    assert desk.take(slot) is first
    desk.end(slot)
    assert desk.take(slot) is None
    assert slot.state is PARKED
    assert desk.scheduler.leave(slot)
    assert slot.state is LEAVING
    second = desk.admit(RICH)
    desk.director_called = False
    desk.fails(lambda: desk.scheduler.mark_idle(slot))
    assert slot.state is IDLE
    assert desk.director_called
    [slot] = desk.hire()
    assert desk.take(slot) is second


def test_a_job_waits_again_after_its_back_off_though_the_clock_raises() -> None:
    desk = Stopped([1], policy=SchedulingPolicy(None))
    job = desk.admit(RICH)
    [slot] = desk.hire()
    assert desk.take(slot) is job
    desk.fail(slot)
    assert desk.take(slot) is None
    desk.fails(lambda: desk.scheduler.requeue(job))
    assert slot.wake_signal.acquire(blocking=False)
    assert desk.scheduler.next_work(slot)[0] is job
