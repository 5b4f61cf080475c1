"""The Director, a worker or the system fails: everybody is told, nobody hangs, and it can be closed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from core.stage import Stage, Watch

from director._core.dispatch import Dispatch
from director._core.states import DirectorState
from director.errors import DirectorClosed, JobError
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Make = Callable[..., Awaitable[Stage]]


def throw(error: BaseException) -> Any:
    raise error


async def test_a_failing_director_fails_all_open_jobs(make_stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await make_stage()
    gate, running = stage.submit()
    await stage.quiet()
    waiting = [stage.submit()[1] for _ in range(3)]
    cause = RuntimeError("a bug of ours")
    monkeypatch.setattr(Dispatch, "hire", lambda self, most: throw(cause))
    stage._crew._call_director()
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
async def test_a_worker_that_fails_tells_all_who_wait(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Nobody hangs: neither who waits nor whose job the worker had."""
    clock = BrokenClock()
    stage = await Stage(Watch().install(monkeypatch), clock=clock).open()
    clock.is_broken = when == "before it looks for work"
    (gate, job), (_, waiting) = stage.submit(), stage.submit()
    if when == "after a job":
        await stage.until(lambda: gate.is_blocking)
        clock.is_broken = True
        gate.open()
    await stage.quiet()
    ends = [future.done() and future.exception() for future in (job, waiting)]
    job.cancel()
    assert await stage.director.run(lambda device: "goes on") == "goes on"
    await stage.director.close()
    assert stage.is_whole
    assert all(isinstance(end, JobError) and isinstance(end.__cause__, ZeroDivisionError) for end in ends), ends
