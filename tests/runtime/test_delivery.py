"""How outcomes get from the slots to those who wait: whoever is called, and whatever that raises."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from harness.gates import turns
from harness.interrupt import Interrupter
from harness.stage import PATIENCE, Stage, Watch

from director import Device, Director, Job, JobError
from director.testing import TestClock


class Interrupted(BaseException):
    """What a signal handler raises."""


def act() -> None:
    raise Interrupted


tag: ContextVar[str] = ContextVar("tag", default="")


@pytest.mark.every_loop
async def test_a_callback_that_raises_is_reported_and_holds_up_nobody() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with Director("simulated:1") as director:
        jobs = [director.submit(lambda _, n: n, number) for number in range(10)]
        for job in jobs[::2]:
            job.add_done_callback(fail)
        assert await asyncio.gather(*jobs) == list(range(10))
        await asyncio.sleep(0)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError] * 5


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_callbacks_are_called_in_their_order_and_in_their_contexts(count: int) -> None:
    seen: list[tuple[int, str, bool]] = []

    def note(number: int) -> Any:
        def callback(job: asyncio.Future[str]) -> None:
            seen.append((number, tag.get(), job.done() and job.result() == "x"))

        return callback

    async with Director("simulated:1") as director:
        job = director.submit(lambda _: "x")
        for number in range(count):
            tag.set(str(number))
            job.add_done_callback(note(number))
        while len(seen) < count:  # noqa: ASYNC110 - nothing tells of a callback but the callback
            await asyncio.sleep(0)
    assert seen == [(number, str(number), True) for number in range(count)]


async def test_a_callback_may_take_others_back_and_cancel_other_jobs() -> None:
    """The first outcome of a delivery is told while the others are still on their way."""
    called: list[int] = []

    async with Director("simulated:1") as director:
        jobs: list[Job[int]] = [director.submit(lambda _, n: n, number) for number in range(20)]

        def cancel_all(_: object) -> None:
            called.append(0)
            for job in jobs[1:]:
                job.cancel()

        jobs[0].add_done_callback(cancel_all)
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert called == [0]
        assert results[0] == 0
        for number, result in enumerate(results):
            assert result == number or isinstance(result, asyncio.CancelledError)
        stats = director.stats()
        assert stats.succeeded + stats.cancelled == 20


async def test_who_is_woken_in_a_delivery_may_close_the_director() -> None:
    director = Director("simulated:2")
    await director.start()

    async def one() -> int:
        value = await director.run(lambda _: 42)
        await director.close()
        return value

    others = [asyncio.ensure_future(director.run(lambda _, n: n, number)) for number in range(50)]
    assert await one() == 42
    assert await asyncio.gather(*others) == list(range(50))


def test_exit_in_a_callback_leaves_the_loop() -> None:
    def leave(_: object) -> None:
        raise SystemExit(7)

    async def main() -> None:
        async with Director("simulated:1") as director:
            director.submit(lambda _: None).add_done_callback(leave)
            await asyncio.Event().wait()

    with pytest.raises(SystemExit, match="7"):
        asyncio.run(main())


async def test_a_call_may_return_the_same_list_again() -> None:
    """The loop looks at the values of a batch when it comes to it, and the next call may have begun by then."""
    results: list[int] = []
    calls = threading.Semaphore(0)
    director = Director("simulated:1")

    @director.function(max_batch_size=2)
    def double(_device: Device, items: list[int]) -> list[int]:
        results[:] = [2 * item for item in items]
        calls.release()
        return results

    async with director:
        jobs = [double.submit(number) for number in range(6)]
        await asyncio.sleep(0)
        for _ in range(3):
            assert calls.acquire(timeout=PATIENCE)  # the loop stands still meanwhile
        assert await asyncio.gather(*jobs) == [0, 2, 4, 6, 8, 10]


async def test_what_was_called_together_counts_as_started_until_the_loop_has_heard_of_it() -> None:
    director = Director("simulated:1")
    has_begun, may_end = threading.Event(), threading.Event()

    def other(_device: Device) -> None:
        has_begun.set()
        assert may_end.wait(PATIENCE)

    @director.function(max_batch_size=4)
    def same(_device: Device, items: list[int]) -> list[int]:
        return items

    async with director:
        jobs = [same.submit(number) for number in range(4)]
        director.submit(other)
        await asyncio.sleep(0)
        assert has_begun.wait(PATIENCE)
        stats = director.stats()
        assert (stats.queued, stats.running, stats.succeeded) == (0, 5, 0)
        assert [job.ran for job in jobs] == [None] * 4
        may_end.set()
        assert await asyncio.gather(*jobs) == [0, 1, 2, 3]
        assert len({job.ran for job in jobs}) == 1
        assert jobs[0].ran is not None


@pytest.mark.parametrize("limit", ["deadline", "timeout"])
async def test_what_was_called_together_and_in_time_is_in_time_whenever_the_loop_looks(limit: str) -> None:
    clock = TestClock()
    director = Director("simulated:1", clock=clock)
    has_begun, may_end = threading.Event(), threading.Event()

    def other(_device: Device) -> None:
        has_begun.set()
        assert may_end.wait(PATIENCE)

    @director.function(max_batch_size=4, **{limit: 5.0})
    def same(_device: Device, items: list[int]) -> list[int]:
        return items

    async with director:
        jobs = [same.submit(number) for number in range(4)]
        after = director.submit(other)
        await asyncio.sleep(0)
        assert has_begun.wait(PATIENCE)  # the loop stands still, and the call has ended
        clock.advance(10.0)
        may_end.set()
        assert await asyncio.gather(*jobs, after) == [0, 1, 2, 3, None]


def test_exit_in_a_callback_loses_nothing_of_its_batch() -> None:
    def leave(_: object) -> None:
        raise SystemExit(7)

    director = Director("simulated:1")

    @director.function(max_batch_size=4)
    def same(_device: Device, items: list[int]) -> list[int]:
        return items

    async def begin() -> list[Job[int]]:
        await director.start()
        jobs = [same.submit(number) for number in range(4)]
        jobs[1].add_done_callback(leave)
        return jobs

    async def end(jobs: list[Job[int]]) -> list[int]:
        results = await asyncio.gather(*jobs)
        await director.close()
        return results

    with asyncio.Runner() as runner:
        jobs = runner.run(begin())
        with pytest.raises(SystemExit, match="7"):
            runner.get_loop().run_until_complete(jobs[3])
        assert runner.run(end(jobs)) == [0, 1, 2, 3]


async def test_a_job_that_begins_does_not_wake_the_event_loop(watch: Watch) -> None:
    stage = await Stage(watch, "cpu").open()
    channel, wakeups = stage._runtime.loop_channel, []
    notify = channel.notify

    def note_and_notify() -> None:
        wakeups.append(len(channel.entries))
        notify()

    channel.notify = note_and_notify  # type: ignore[method-assign]
    for count in range(1, 4):
        gate, job = stage.submit()
        await stage.quiet()  # it runs
        assert len(wakeups) == count - 1
        gate.open()
        await job
        await stage.quiet()
        assert len(wakeups) == count
    assert all(wakeups), "the event loop was woken for nothing"
    await stage.director.close()


async def test_a_task_that_awaits_one_job_after_the_other_is_resumed_once_for_many() -> None:
    """Outcomes that have arrived together are set before the first task is resumed."""
    steps = 0

    class Counted(Coroutine[Any, Any, list[int]]):
        """A coroutine whose steps are counted."""

        def __init__(self, inner: Coroutine[Any, Any, list[int]]) -> None:
            self.inner = inner

        def __await__(self) -> Any:
            return self.inner.__await__()

        def send(self, value: Any) -> Any:
            nonlocal steps
            steps += 1
            return self.inner.send(value)

        def throw(self, *args: Any) -> Any:
            return self.inner.throw(*args)

    async def read(jobs: list[Job[int]]) -> list[int]:
        return [await job for job in jobs]

    async with Director("simulated:1") as director:
        ended = threading.Semaphore(0)
        jobs = [director.submit(lambda _, n: (ended.release(), n)[1], number) for number in range(24)]
        reader = asyncio.create_task(Counted(read(jobs)))
        await asyncio.sleep(0)  # it waits for the first job
        for _ in jobs:
            assert ended.acquire(timeout=PATIENCE)  # the loop stands still meanwhile
        assert await director.run(lambda _: 0) == 0  # the last outcome was posted before this call began
        assert await reader == list(range(24))
    assert steps <= 3, "the start, the outcomes, and one that was posted too late"


async def test_a_handler_may_raise_at_any_line_of_a_delivery() -> None:
    """Each done-callback is called once, with its job's outcome set: the result, or that it was interrupted."""
    loop, at, is_over = asyncio.get_running_loop(), 0, False
    while not is_over:
        called: list[tuple[int, bool]] = []
        lines: asyncio.Future[int] = loop.create_future()

        def deliver(channel: Any, lines: asyncio.Future[int] = lines, at: int = at) -> None:  # in no task
            interrupter = Interrupter(act, at)
            gc.disable()  # a finalizer would be interrupted instead
            try:
                with suppress(Interrupted), interrupter:
                    channel.deliver()
            finally:
                gc.enable()
                lines.set_result(interrupter.lines)

        async with Director("simulated:1") as director:
            runtime, ended = director._runtime, threading.Semaphore(0)
            assert runtime is not None
            await director.run(lambda _: None)  # now the slot has its thread
            jobs = [director.submit(lambda _, n, ended=ended: (ended.release(), n)[1], n) for n in range(3)]
            for number, job in enumerate(jobs):
                job.add_done_callback(lambda job, number=number, to=called: to.append((number, job.done())))
            for _ in jobs:
                assert ended.acquire(timeout=PATIENCE)  # the loop stands still meanwhile
            while len(runtime.loop_channel.entries) < len(jobs):
                time.sleep(0)  # noqa: ASYNC251 - the last one is posted after its call has ended
            loop.call_soon(deliver, runtime.loop_channel)
            is_over = await lines <= at
            at += 1
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert sum(isinstance(outcome, JobError) for outcome in outcomes) <= 1
            await turns()
        assert sorted(called) == [(0, True), (1, True), (2, True)], f"after line {at - 1}"
    assert at > 50
