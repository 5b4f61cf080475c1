"""An event loop that is closed under an open Director: nothing hangs, nothing is left, and one warning says so."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from director import Director, DirectorClosed, DirectorState, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    NewLoop = Callable[[], asyncio.AbstractEventLoop]

PATIENCE = 20.0
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
pytestmark = pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])


class Held:
    """A call that runs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> str:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return "held"


def threads_of(director: Director) -> list[threading.Thread]:
    assert director._runtime is not None
    threads = [slot.thread._thread for slot in director._runtime.scheduler.slots]
    return [thread for thread in threads if thread is not None]


def end(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_jobs_are_dropped_and_threads_end(new_loop: NewLoop) -> None:
    loop: Any = new_loop()
    director, held = Director("cpu"), Held()

    async def begin() -> Any:
        await director.start()
        jobs = [director.submit(held), director.submit(str)]
        await loop.run_in_executor(None, held.begun.wait)
        return jobs, director.as_executor(), threads_of(director)

    (running, waiting), executor, threads = loop.run_until_complete(begin())
    queued = executor.submit(int, "5")
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.warns(ResourceWarning, match="was never closed") as warned:
        loop.close()
    assert len(warned) == 1
    assert director.state is DirectorState.CLOSED
    assert (running.state, waiting.state) == (JobState.CANCELLED, JobState.CANCELLED)
    stats = director.stats()
    assert (stats.queued, stats.running, stats.cancelled) == (0, 0, 3)
    with pytest.raises(RuntimeError, match="event loop of the Director was closed"):
        queued.result(PATIENCE)
    with pytest.raises(DirectorClosed):
        executor.submit(int, "5")
    held.go.set()
    end(threads)

    async def again() -> Any:
        await director.close()
        async with director:
            return await director.run(lambda device: "again")

    assert asyncio.run(again()) == "again"


def test_a_call_of_the_executor_that_runs_is_delivered(new_loop: NewLoop) -> None:
    loop: Any = new_loop()
    director, held = Director("cpu"), Held()

    async def begin() -> Any:
        await director.start()
        future = director.as_executor().submit(held)
        await loop.run_in_executor(None, held.begun.wait)
        return future, threads_of(director)

    future, threads = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.warns(ResourceWarning, match="was never closed"):
        loop.close()
    held.go.set()
    assert future.result(PATIENCE) == "held"
    end(threads)


def count(_device: Any) -> Iterator[int]:
    yield from range(1_000)


def test_streams_and_leases_and_maps_hold_no_thread(new_loop: NewLoop) -> None:
    loop: Any = new_loop()
    director = Director("cpu:3")

    async def hold() -> None:
        async with director.lease():
            await asyncio.sleep(PATIENCE)

    async def begin() -> Any:
        await director.start()
        stream = director.stream(count, buffer=1)
        assert await anext(stream) == 0
        mapped = director.map(lambda device, item: item, range(1_000))
        assert await anext(mapped) == 0
        holder = asyncio.ensure_future(hold())
        while director.stats().running < 2:  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)
        return [stream, mapped, holder], threads_of(director)

    kept, threads = loop.run_until_complete(begin())
    kept[-1]._log_destroy_pending = False
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the user's own
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        loop.close()
        kept.clear()
        del loop
        gc.collect()
    assert ["was never closed" in str(each.message) for each in warned].count(True) == 1
    end(threads)


def test_two_loops_in_turn(new_loop: NewLoop) -> None:
    director = Director("cpu:2")
    for _ in range(3):
        loop: Any = new_loop()

        async def use() -> Any:
            await director.start()
            return await asyncio.gather(*(director.run(lambda device, i: i, i) for i in range(5)))

        assert loop.run_until_complete(use()) == list(range(5))
        with pytest.warns(ResourceWarning, match="was never closed"):
            loop.close()


def test_a_thread_that_waits_for_a_call_which_is_never_made(new_loop: NewLoop) -> None:
    """The loop is closed before the Director coroutine could hire a worker."""
    loop: Any = new_loop()
    director = Director("cpu")

    async def begin() -> Any:
        await director.start()
        return director.as_executor()

    executor = loop.run_until_complete(begin())
    futures = [executor.submit(int, "5") for _ in range(3)]
    waiter = threading.Thread(target=wait, args=(futures,), daemon=True)
    waiter.start()
    with pytest.warns(ResourceWarning, match="was never closed"):
        loop.close()
    end([waiter])
    assert all(isinstance(future.exception(), RuntimeError) for future in futures)


def test_what_a_thread_submits_as_the_loop_is_closed_is_refused(new_loop: NewLoop) -> None:
    loop: Any = new_loop()
    director, held = Director("cpu"), Held()

    async def begin() -> Any:
        await director.start()
        director.submit(held)
        await loop.run_in_executor(None, held.begun.wait)
        return director.as_executor(), threads_of(director)

    executor, threads = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    scheduler: Any = director._runtime.scheduler  # type: ignore[union-attr]
    running, refused = scheduler.running, []

    def submit_meanwhile(**options: Any) -> Any:
        found = running(**options)
        with pytest.raises(DirectorClosed) as raised:
            executor.submit(int, "5")
        refused.append(raised)
        return found

    scheduler.running = submit_meanwhile
    with pytest.warns(ResourceWarning, match="was never closed"):
        loop.close()
    assert refused
    assert director.state is DirectorState.CLOSED
    held.go.set()
    end(threads)


def test_a_call_of_the_executor_that_is_cancelled_by_itself_has_an_outcome(new_loop: NewLoop) -> None:
    loop: Any = new_loop()
    director, held = Director("cpu"), Held()

    def leave() -> None:
        held()
        raise asyncio.CancelledError

    async def begin() -> Any:
        await director.start()
        future = director.as_executor().submit(leave)
        await loop.run_in_executor(None, held.begun.wait)
        return future, threads_of(director)

    future, threads = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.warns(ResourceWarning, match="was never closed"):
        loop.close()
    held.go.set()
    with pytest.raises(asyncio.CancelledError):
        future.result(PATIENCE)
    end(threads)
