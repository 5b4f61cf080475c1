"""Drains and closes that are cancelled or compete, and tasks that are cancelled by somebody who does not own them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from harness.stage import PATIENCE, Stage

from director import Director
from director._api.lifecycle import DirectorState
from director.errors import DirectorClosed, JobAborted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.stage import Gate

    from director._system.threads import DaemonThreadExecutor

    Make = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def busy(make_stage: Make) -> tuple[Stage, Gate, asyncio.Task[Any], asyncio.Task[Any]]:
    """A stage with a caller whose job runs, and one whose job waits."""
    stage = await make_stage()
    gate = stage.gate()
    runs = asyncio.create_task(stage.director.run(gate))
    waits = asyncio.create_task(stage.director.run(stage.gate()))
    await stage.quiet()
    assert gate.is_blocking
    return stage, gate, runs, waits


Busy = tuple[Stage, "Gate", "asyncio.Task[Any]", "asyncio.Task[Any]"]


async def test_a_cancelled_drain_goes_on(busy: Busy) -> None:
    stage, _, runs, waits = busy
    draining = asyncio.create_task(stage.director.drain())
    await stage.quiet()
    draining.cancel()
    await stage.quiet()
    assert draining.cancelled()
    assert stage.director.state is DirectorState.DRAINING
    with pytest.raises(DirectorClosed):
        stage.submit()
    stage.open_gates()
    await asyncio.gather(runs, waits)
    await stage.director.drain()
    assert stage.is_whole


async def test_a_caller_leaves_while_the_director_drains(busy: Busy) -> None:
    stage, gate, runs, waits = busy
    closing = asyncio.create_task(stage.director.close())
    await stage.quiet()
    runs.cancel()
    waits.cancel()
    await stage.quiet()
    assert runs.cancelled()
    assert waits.cancelled()
    assert closing.done(), "the close waits for a call whose caller has left, beyond its grace"
    gate.open()
    await stage.until(lambda: stage.is_whole)


async def test_a_cancelled_close_closes_at_once(busy: Busy) -> None:
    stage, gate, runs, waits = busy
    closing = asyncio.create_task(stage.director.close())
    await stage.quiet()
    closing.cancel()
    await asyncio.wait([closing])
    await stage.quiet()
    assert closing.cancelled()
    assert isinstance(runs.exception(), JobAborted)
    assert isinstance(waits.exception(), DirectorClosed)
    assert stage.director.state is DirectorState.CLOSED
    gate.open()
    await stage.until(lambda: stage.is_whole)


@pytest.mark.parametrize("first", ["cancelled", "timed out"])
async def test_a_close_that_is_cancelled_in_its_grace_is_not_half_a_close(busy: Busy, first: str) -> None:
    """Ctrl-C twice, or Ctrl-C in the second after a block was left by an exception."""
    stage, gate, runs, waits = busy
    closing = asyncio.create_task(stage.director.close(None if first == "cancelled" else 0.0, PATIENCE))
    await stage.quiet()
    if first == "cancelled":
        closing.cancel()
    await stage.quiet()
    assert isinstance(waits.exception(), DirectorClosed)
    closing.cancel()
    await stage.quiet()
    gate.open("result")
    await asyncio.wait([closing])
    assert stage.director.state is DirectorState.CLOSED
    assert closing.cancelled()
    assert await runs == "result"
    assert stage.is_whole
    for slot in stage.slots:
        assert not slot.thread._thread.is_alive()


async def test_a_close_hears_of_what_is_on_its_way(make_stage: Make) -> None:
    """Nothing is left to do but a call that is still on its way to the loop."""
    stage = await make_stage()
    future: Any = stage.director.as_executor().submit(int)
    future.job.cancel()
    await asyncio.wait_for(stage.director.close(), PATIENCE)
    assert future.cancelled()


@pytest.mark.parametrize("other", ["drain", "close"])
async def test_a_close_in_haste_answers_all_who_wait_for_rest(busy: Busy, other: str) -> None:
    """A supervisor closes in haste what somebody else waits for patiently."""
    stage, gate, runs, waits = busy
    patient = asyncio.create_task(getattr(stage.director, other)())
    await stage.quiet()
    await stage.close_in_haste()
    await stage.quiet()
    answered = patient.done()
    patient.cancel()
    gate.open()
    await asyncio.gather(patient, runs, waits, return_exceptions=True)
    assert answered


async def test_the_block_is_left_by_an_exception(busy: Busy) -> None:
    stage, gate, runs, waits = busy
    error = ValueError("in the block")
    leaving = asyncio.create_task(stage.director.__aexit__(ValueError, error, None))
    await stage.quiet()
    await leaving
    assert isinstance(runs.exception(), JobAborted)
    assert isinstance(waits.exception(), DirectorClosed)
    assert stage.director.state is DirectorState.CLOSED
    gate.open()
    await stage.until(lambda: stage.is_whole)


@pytest.mark.parametrize("scope", ["task", "anyio"])
async def test_the_block_is_left_by_cancellation(scope: str) -> None:
    director = Director("cpu")
    inside = asyncio.Event()
    cancel_scope = anyio.CancelScope()

    async def use() -> None:
        with cancel_scope:
            async with director:
                assert await director.run(lambda device: 1) == 1
                inside.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await inside.wait()
    (task if scope == "task" else cancel_scope).cancel()
    await asyncio.wait([task])
    assert director.state is DirectorState.CLOSED
    assert task.cancelled() is (scope == "task")


async def test_a_start_that_is_cancelled_can_be_repeated() -> None:
    director = Director("cpu")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await director.start()
    assert director.state is DirectorState.NEW
    async with director:
        assert await director.run(lambda device: 1) == 1


# ---- somebody cancels tasks that are not theirs


def tasks_of(director: Director) -> tuple[asyncio.Task[Any], list[asyncio.Task[Any]]]:
    """The Director's own task, and those of its workers."""
    assert director._runtime.task is not None
    named = [task for task in asyncio.all_tasks() if task.get_name().startswith("director:")]
    return director._runtime.task, [task for task in named if task is not director._runtime.task]


async def test_the_task_of_a_worker_is_cancelled(busy: Busy) -> None:
    """The permit stays with the thread."""
    stage, gate, runs, waits = busy
    _, workers = tasks_of(stage.director)
    assert len(workers) == 1
    workers[0].cancel()
    await stage.quiet()
    assert workers[0].cancelled()
    assert stage.permits[stage.places[0]]._value == 0
    assert not waits.done()
    gate.open("result")
    stage.open_gates()
    assert await runs is None or True
    await waits
    assert max(stage.crowd.most.values()) == 1
    assert await stage.director.run(lambda device: "goes on") == "goes on"


async def test_the_task_of_the_director_is_cancelled(busy: Busy) -> None:
    """Then nobody hires any more: whoever waits must not wait for ever."""
    stage, gate, runs, waits = busy
    task, _ = tasks_of(stage.director)
    task.cancel()
    await stage.quiet()
    assert isinstance(waits.exception(), DirectorClosed)
    assert not stage.director.healthy
    with pytest.raises(DirectorClosed):
        stage.submit()
    gate.open("result")
    assert await runs == "result"
    await stage.director.close()
    assert stage.director.state is DirectorState.CLOSED


async def test_all_tasks_are_cancelled_together(busy: Busy) -> None:
    """As asyncio.run() does in the end, and many a server; here the owner of the Director is among them."""
    stage, gate, _, _ = busy
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def own() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await stage.director.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)

    owner = asyncio.create_task(own())
    await stage.quiet()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others)
    await stage.quiet()
    assert owner.cancelled()
    assert stage.director.state is DirectorState.CLOSED
    assert not complaints
    gate.open()


async def test_the_closing_task_is_cancelled_before_it_begins(busy: Busy) -> None:
    """By somebody who cancels all tasks in the very turn of the loop in which the close was asked for."""
    stage, _, runs, waits = busy
    closing = asyncio.create_task(stage.director.close(timeout=0))
    begun = None
    while begun is None:
        await asyncio.sleep(0)
        begun = next((task for task in asyncio.all_tasks() if task.get_name() == "director:close"), None)
    begun.cancel()
    stage.open_gates()
    await asyncio.wait([closing, runs, waits])
    await stage.director.close()
    state = stage.director.state
    stage.director._closing = None  # or nothing can close it
    await stage.director.close()
    assert state is DirectorState.CLOSED


@pytest.mark.parametrize("is_running", [True, False])
def test_asyncio_run_ends_with_callers_left(is_running: bool) -> None:
    """It cancels what is left when its loop does not run any more."""
    go, begun = threading.Event(), threading.Event()
    director = Director("cpu")

    def work(device: Any) -> None:
        begun.set()
        go.wait(PATIENCE)

    async def main() -> tuple[asyncio.Task[Any], DaemonThreadExecutor]:
        await director.start()
        task = asyncio.create_task(director.run(work))
        await asyncio.sleep(0)
        if is_running:
            await asyncio.to_thread(begun.wait)
        assert director._runtime is not None
        return task, director._runtime.scheduler.slots[0].thread

    with pytest.warns(ResourceWarning, match="was never closed"):
        task, thread = asyncio.run(main())
    assert task.cancelled()
    assert director.stats().cancelled == 1
    go.set()
    asyncio.run(director.close())
    assert director.state is DirectorState.CLOSED
    thread.shutdown()
