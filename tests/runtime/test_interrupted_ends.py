"""Many jobs are ended together, and a signal handler raises between two of them: all the same each of them ends."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate
from harness.interrupt import Interrupter

from director import Director, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._runtime.runtime import Runtime

pytestmark = pytest.mark.timeout(120)


class Interrupted(BaseException):
    """What a handler raises."""


def act() -> None:
    raise Interrupted


def double(_resource: Any, value: int) -> int:
    return 2 * value


def give_up(runtime: Runtime) -> None:
    """For a long time no worker could be started on the only slot."""
    [slot] = runtime.scheduler.slots
    trouble = type("Trouble", (), {"since": -1e9, "reason": "none", "timer": None})
    runtime.start_backoff._failed_starts[slot] = trouble  # type: ignore[assignment]
    try:
        runtime.start_backoff._give_up(1e12)
    finally:
        runtime.start_backoff._failed_starts.clear()


STEPS: dict[str, Callable[[Runtime], None]] = {
    "close": lambda runtime: runtime.job_lifecycle.end_waiting(),
    "abort": lambda runtime: runtime.job_lifecycle.abort_running(1.0),
    "failure": lambda runtime: runtime.fail(ValueError("the Director coroutine")),
    "lost device": lambda runtime: runtime.health.registry.quarantine(runtime.device_slots[0], "lost"),
    "no worker": give_up,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
async def test_a_handler_may_raise_at_any_line_while_jobs_are_ended_together(rich: bool, step: str) -> None:
    at, is_over = 0, False
    while not is_over:
        director, gate = Director("simulated:1", max_queue=None), Gate()
        await director.start()
        runtime = director._runtime
        assert runtime is not None
        running = director.submit(gate)
        await gate.begun()
        jobs = [director.submit(double, n, **({"priority": n, "deadline": 60} if rich else {})) for n in range(3)]
        gc.disable()  # a finalizer of the Director before this one would be interrupted instead
        try:
            with Interrupter(act, at):
                STEPS[step](runtime)
            is_over = True
        except Interrupted:
            at += 1
        finally:
            gc.enable()
        runtime.loop_channel.deliver()
        for job in jobs:  # those that were not withdrawn may be withdrawn later
            assert job.done() or job.state is JobState.QUEUED, f"{job!r} will never end, after line {at}"
        assert running.done() or running.state is JobState.RUNNING, f"{running!r} will never end, after line {at}"
        gate.open()
        async with asyncio.timeout(PATIENCE):
            await director.close()
            await asyncio.gather(running, *jobs, return_exceptions=True)
        assert director.stats().queued == 0
    assert at > 10


async def test_an_end_that_raises_keeps_no_other_job_from_its_own() -> None:
    director, gate = Director("simulated:1", max_queue=None), Gate()
    await director.start()
    runtime = director._runtime
    assert runtime is not None
    director.submit(gate)
    await gate.begun()
    jobs = [director.submit(double, n) for n in range(4)]
    tried: list[Any] = []

    def end(job: Any) -> None:
        tried.append(job)
        if job is jobs[1]:
            raise Interrupted
        runtime.job_lifecycle._end_cancelled(job, None)

    def withdraw(into: Any) -> None:
        runtime.scheduler.remove_all(into, JobState.CANCELLED)

    with pytest.raises(Interrupted):
        runtime.job_lifecycle.endings.withdraw(withdraw, end)
    runtime.loop_channel.deliver()
    assert [job.done() for job in jobs] == [True, False, True, True]
    assert tried == [jobs[0], jobs[1], jobs[1], jobs[2], jobs[3]]
    runtime.job_lifecycle._end_cancelled(jobs[1], None)
    gate.open()
    async with asyncio.timeout(PATIENCE):
        await director.close()
