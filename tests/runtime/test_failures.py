"""The Director, a worker or the system fails: everybody is told, nobody hangs, and it can be closed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.stage import PATIENCE, Stage, Watch

from director._api.lifecycle import DirectorState
from director._devices.health.rules import Health
from director._scheduler.scheduler import Scheduler
from director.errors import DeviceLost, DirectorClosed, JobError
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from director._scheduler.slots import Slot

    Make = Callable[..., Awaitable[Stage]]


def throw(error: BaseException) -> Any:
    raise error


async def test_a_failing_director_fails_all_open_jobs(make_stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await make_stage()
    gate, running = stage.submit()
    await stage.quiet()
    waiting = [stage.submit()[1] for _ in range(3)]
    cause = RuntimeError("a bug of ours")
    monkeypatch.setattr(Scheduler, "pick_slots_to_start", lambda self, most: throw(cause))
    stage._runtime.worker_pool.notify()
    await stage.quiet()
    for job in [running, *waiting]:
        error = job.exception()
        assert isinstance(error, JobError)
        assert error.__cause__ is cause
    assert stage.director.state is DirectorState.FAILED
    assert not stage.director.healthy
    with pytest.raises(DirectorClosed, match="failed"):
        stage.submit()
    gate.open()
    await stage.director.close()
    assert stage.director.state is DirectorState.CLOSED
    assert stage.director.stats().failed == 4
    monkeypatch.undo()
    async with stage.director:
        assert await stage.director.run(lambda device: "again") == "again"


class BrokenClock(TestClock):
    """Fails on a slot's thread, once, when it is told to."""

    __test__ = False
    is_broken = False

    def time(self) -> float:
        if self.is_broken and threading.current_thread().name.startswith("director:cpu"):
            self.is_broken = False
            raise ZeroDivisionError("the clock is broken")
        return super().time()


@pytest.mark.parametrize("when", ["before it looks for work", "after a job"])
async def test_a_worker_that_fails_takes_only_what_it_holds(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """What waits goes to the next worker; the job that it had fails with the cause."""
    clock = BrokenClock()
    stage = await Stage(Watch().install(monkeypatch), clock=clock).open()
    clock.is_broken = when == "before it looks for work"
    (gate, job), (other, waiting) = stage.submit(), stage.submit()
    await stage.until(lambda: gate.is_blocking)
    clock.is_broken = when == "after a job"
    gate.open("done")
    other.open("served")
    await stage.quiet()
    assert waiting.result() == "served"
    if when == "after a job":
        error = job.exception()
        assert isinstance(error, JobError)
        assert isinstance(error.__cause__, ZeroDivisionError)
    else:
        assert job.result() == "done"
    assert stage.director.state is DirectorState.OPEN
    assert stage.director.healthy
    stats = stage.director.stats()
    assert (stats.succeeded, stats.failed) == ((1, 1) if when == "after a job" else (2, 0))
    await stage.director.close()
    assert stage.is_whole


async def test_a_device_whose_workers_fail_again_and_again_gets_no_more_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that holds no job when it fails may go round for ever: what waits is told."""
    stage = await Stage(Watch().install(monkeypatch)).open()
    monkeypatch.setattr(Scheduler, "next_work", lambda self, slot: throw(MemoryError()))
    job = stage.director.submit(lambda device: 1)
    await stage.until(job.done)
    assert isinstance(job.exception(), DeviceLost)
    assert stage.director.stats().devices[0].health is Health.QUARANTINED
    monkeypatch.undo()
    await stage.director.close()
    assert stage.director.stats().failed == 1


async def test_what_a_failed_worker_has_posted_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails before it has rung for the outcomes that are there already."""
    stage = await Stage(Watch().install(monkeypatch)).open()
    taken, take = [0], Scheduler.next_work

    def fail_at_second(self: Scheduler, slot: Slot) -> Any:
        taken[0] += 1
        return throw(MemoryError()) if taken[0] == 2 else take(self, slot)

    monkeypatch.setattr(Scheduler, "next_work", fail_at_second)
    jobs = [stage.director.submit(lambda device, number: number, number) for number in range(3)]
    assert await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE) == [0, 1, 2]
    monkeypatch.undo()
    await stage.director.close()
    assert stage.director.stats().succeeded == 3
