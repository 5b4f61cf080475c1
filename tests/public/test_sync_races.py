"""`SyncDirector`: calls of other threads, signal handlers and finalizers at the worst moment all have an outcome."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from director import DirectorClosed, DirectorState, SyncDirector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20.0


def double(_device: Any, number: int) -> int:
    return 2 * number


def count(_device: Any, end: int) -> Iterator[int]:
    yield from range(end)


@pytest.fixture
def director() -> Iterator[SyncDirector]:
    with SyncDirector("cpu") as director:
        yield director


def on_a_thread(call: Callable[[], Any]) -> Future[Any]:
    """Call it on a daemon thread, which a test that fails may leave."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def scheduler_of(director: SyncDirector) -> Any:
    runtime: Any = director._director._runtime
    return runtime.scheduler


def test_a_call_as_the_loop_ends_is_told_that_it_is_closed() -> None:
    director = SyncDirector("cpu").start()
    loop: Any = director._loop
    has_stopped, may_close = threading.Event(), threading.Event()

    async def shut_down() -> None:
        has_stopped.set()
        assert may_close.wait(PATIENCE)

    loop.shutdown_asyncgens = shut_down
    closing = on_a_thread(director.close)
    assert has_stopped.wait(PATIENCE)
    calls: list[Callable[[], Any]] = [lambda: director.run(double, 1), lambda: director.submit(double, 1).result()]
    called = [on_a_thread(call) for call in calls]
    assert [type(future.exception(PATIENCE)).__mro__[1] for future in called] == [DirectorClosed] * 2
    may_close.set()
    closing.result(PATIENCE)


def test_a_call_that_is_on_the_loop_when_the_director_has_closed_ends() -> None:
    director = SyncDirector("cpu").start()
    has_begun = threading.Event()

    async def work() -> str:
        has_begun.set()
        while director.state is not DirectorState.CLOSED:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        return "done"

    called = on_a_thread(lambda: director._wait_for(work()))
    assert has_begun.wait(PATIENCE)
    director.close()
    assert called.result(PATIENCE) == "done"


def test_a_future_has_its_result_though_the_director_closes_as_it_is_made(director: SyncDirector) -> None:
    wait_for = director._wait_for

    def wait_and_close(work: Any) -> Any:
        del director._wait_for  # type: ignore[method-assign]
        value = wait_for(work)
        director.close()
        return value

    director._wait_for = wait_and_close  # type: ignore[method-assign]
    assert director.submit(double, 4).result(PATIENCE) == 8


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
def test_a_signal_handler_may_close_it_while_it_closes() -> None:
    director = SyncDirector("cpu").start()
    may_end, is_closing = threading.Event(), threading.Event()
    close = director._director.close

    async def note_and_close(*args: Any) -> None:
        is_closing.set()
        await close(*args)

    director._director.close = note_and_close  # type: ignore[method-assign]
    running = director.submit(lambda _: may_end.wait(PATIENCE))

    def handle(*_: Any) -> None:
        may_end.set()
        director.close()

    def press() -> None:
        assert is_closing.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        pressed = on_a_thread(press)
        director.close()
        pressed.result(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert running.result(0) is True
    assert director.state is DirectorState.CLOSED


def test_a_stream_may_be_collected_within_a_decision(director: SyncDirector) -> None:
    values = director.stream(count, 1_000)
    assert next(values) == 0
    with scheduler_of(director)._lock:  # as the collector may, on any thread; the loop needs it to cancel the job
        values.close()  # type: ignore[attr-defined]
    assert director.run(double, 1) == 2
    assert director.stats().cancelled == 1


def test_a_call_within_a_decision_is_refused_for_it_would_wait_forever(director: SyncDirector) -> None:
    scheduler = scheduler_of(director)
    with scheduler._lock:
        scheduler._is_deciding = True
        try:
            with pytest.raises(RuntimeError, match="finalizer"):
                director.run(double, 1)
            assert director.stats().queued == 0
        finally:
            scheduler._is_deciding = False


def test_its_stats_count_each_job_once_while_outcomes_are_delivered(director: SyncDirector) -> None:
    lifecycle: Any = director._director._runtime.job_lifecycle  # type: ignore[union-attr]
    loop: Any = director._loop
    was_in_time, call_soon = lifecycle._was_in_time, loop.call_soon_threadsafe
    is_delivering, may_go_on = threading.Event(), threading.Event()

    def hold(job: Any) -> Any:
        is_delivering.set()
        assert may_go_on.wait(PATIENCE)
        return was_in_time(job)

    def call_and_go_on(*args: Any, **kwargs: Any) -> Any:
        handle = call_soon(*args, **kwargs)
        may_go_on.set()
        return handle

    lifecycle._was_in_time = hold
    future = director.submit(double, 1, timeout=60)
    assert is_delivering.wait(PATIENCE)
    loop.call_soon_threadsafe = call_and_go_on
    stats = director.stats()
    may_go_on.set()
    assert (stats.queued, stats.running, stats.succeeded) == (0, 0, 1)
    assert future.result(PATIENCE) == 2


def test_eight_threads_call_it_until_it_is_closed() -> None:
    director, calls = SyncDirector("cpu:2").start(), threading.Semaphore(0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def use(which: int) -> None:
        number = 0
        with suppress(DirectorClosed):
            while True:
                number += 1
                assert director.run(double, number) == 2 * number
                future = director.submit(double, number, when_full="wait")
                if which == number % 8:
                    future.cancel()
                assert future.cancelled() or future.result(PATIENCE) == 2 * number
                assert list(director.map(double, range(5))) == [0, 2, 4, 6, 8]
                assert list(director.stream(count, 5, when_full="wait")) == list(range(5))
                calls.release()

    try:
        used = [on_a_thread(partial(use, which)) for which in range(8)]
        for _ in range(40):
            assert calls.acquire(timeout=PATIENCE)
        director.close(0)
        assert [future.exception(PATIENCE) for future in used] == [None] * 8
    finally:
        sys.setswitchinterval(before)
