"""Other loops, other threads, loops that are closed too early, Directors that nobody closes."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.stage import PATIENCE, Stage

from director import Director, Model
from director._api.lifecycle import DirectorState
from director.errors import DirectorClosed
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.stage import Stage

    from director._threads import DaemonThreadExecutor

    Make = Callable[..., Awaitable[Stage]]


async def test_another_loop_and_another_thread_are_told(make_stage: Make) -> None:
    stage = await make_stage()
    director = stage.director

    async def use() -> None:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            director.submit(lambda device: 1)
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            await director.run(lambda device: 1)
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            await director.drain()

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            director.submit(lambda device: 1)
        asyncio.run(use())

    await asyncio.to_thread(elsewhere)
    gate, job = stage.submit()
    await stage.quiet()
    with pytest.raises(RuntimeError, match="event loop of its Director"):
        await asyncio.to_thread(job.cancel)
    gate.open("result")
    assert await job == "result"


async def test_a_close_from_another_loop_is_told(make_stage: Make) -> None:
    stage = await make_stage()
    with pytest.raises(RuntimeError, match="another event loop or thread"):
        await asyncio.to_thread(asyncio.run, stage.director.close())


def test_restarted_in_another_loop() -> None:
    director = Director("cpu:2", slots=2)
    model = Model(lambda device: device.index)

    async def use() -> set[int]:
        async with director:
            return {result async for result in director.map(lambda replica, item: replica, range(50), model=model)}

    for _ in range(3):
        assert asyncio.run(use()) <= {0, 1}
        assert director.state is DirectorState.CLOSED


def test_the_loop_is_closed_under_the_director(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is left behind ends, and has nobody to complain to."""
    complaints: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    with pytest.warns(ResourceWarning, match="was never closed"):
        collect_after(leave_in_the_middle)
    assert not complaints


def collect_after(leave: Callable[[], list[DaemonThreadExecutor]]) -> None:
    """Call `leave`, which returns threads of slots; let them end, and let the Director become garbage."""
    for thread in leave():
        thread.shutdown()  # joins it
    gc.collect()


def threads_of(director: Director) -> list[DaemonThreadExecutor]:
    assert director._runtime is not None
    return [slot.thread for slot in director._runtime.scheduler.slots]


def leave_in_the_middle() -> list[DaemonThreadExecutor]:
    """Close a loop while a job runs; returns the threads of the slots."""
    go, begun = threading.Event(), threading.Event()
    director = Director("cpu")
    loop = asyncio.new_event_loop()

    async def begin() -> list[DaemonThreadExecutor]:
        await director.start()
        director.submit(lambda device: begun.set() or go.wait(PATIENCE))
        await asyncio.to_thread(begun.wait)
        await loop.shutdown_default_executor()
        return threads_of(director)

    threads = loop.run_until_complete(begin())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    go.set()
    return threads


def test_a_forgotten_close_is_warned_of() -> None:
    async def main() -> list[DaemonThreadExecutor]:
        director = Director("cpu", name="mine")
        await director.start()
        assert await director.run(lambda device: 1) == 1
        return threads_of(director)

    with pytest.warns(ResourceWarning, match="<Director 'mine' .* was never closed"):
        collect_after(lambda: asyncio.run(main()))


def test_a_director_that_was_never_made_leaves_in_silence() -> None:
    """pytest reports what its `__del__` raises."""
    with pytest.raises(ValueError, match="at least one slot"):
        Director(slots=0)
    gc.collect()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_restarts_leave_no_descriptors_behind() -> None:
    director = Director("cpu")
    async with director:
        await director.run(lambda device: 1)
    gc.collect()
    gc.disable()
    try:
        before = descriptors()
        for _ in range(5):
            async with director:
                await director.run(lambda device: 1)
        assert descriptors() <= before
    finally:
        gc.enable()


# ---- a thread submits as the loop closes


class SlowClock(TestClock):
    """Holds the thread called "submitter" when it asks for the time, which is just before a job is queued."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.go = threading.Event(), threading.Event()

    def time(self) -> float:
        if threading.current_thread().name == "submitter":
            self.holds.set()
            self.go.wait(PATIENCE)
        return super().time()


@pytest.mark.parametrize("end", ["closes", "fails"])
async def test_a_thread_submits_as_the_director_ends(make_stage: Make, end: str) -> None:
    clock = SlowClock()
    stage = await make_stage(clock=clock)
    executor = stage.director.as_executor()
    outcomes: list[Any] = []

    def submit() -> None:
        try:
            outcomes.append(executor.submit(int))
        except BaseException as error:
            outcomes.append(error)

    submitter = threading.Thread(target=submit, name="submitter")
    submitter.start()
    assert clock.holds.wait(PATIENCE)
    if end == "closes":
        await stage.director.close()
    else:
        assert stage.director._runtime.task is not None
        stage.director._runtime.task.cancel()
        await stage.quiet()
    clock.go.set()
    submitter.join()
    await stage.quiet()
    (outcome,) = outcomes
    assert isinstance(outcome, DirectorClosed) or outcome.done(), "the future is never settled"
