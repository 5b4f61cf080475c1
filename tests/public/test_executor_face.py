"""`as_executor`: what CPython's own tests ask of a `concurrent.futures.Executor`, from threads beside the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import weakref
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from harness.gates import PATIENCE, Gate, ThreadClock, outcome, turns, until

from director import (
    Director,
    DirectorClosed,
    DirectorExecutor,
    JobAborted,
    JobTimeout,
    Model,
    current_device,
    current_job,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from director.testing import TestClock

T = TypeVar("T")
in_thread = asyncio.to_thread


@pytest.fixture
async def director() -> AsyncIterator[Director]:
    async with Director("simulated:2") as director:
        yield director


@pytest.fixture
async def executor(director: Director) -> DirectorExecutor:
    return director.as_executor()


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def fail(kind: type[BaseException] = ZeroDivisionError) -> None:
    raise kind("on purpose")


async def test_it_is_an_executor(executor: DirectorExecutor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)


async def test_functions_are_called_exactly_as_given(executor: DirectorExecutor) -> None:
    def work() -> Any:
        futures: list[Future[Any]] = [
            executor.submit(pow, 2, 8),
            executor.submit(capture, 1, self=2, fn=3),
            executor.submit(capture),
        ]
        return [future.result(PATIENCE) for future in futures]

    assert await in_thread(work) == [256, ((1,), {"self": 2, "fn": 3}), ((), {})]
    with pytest.raises(TypeError):
        executor.submit(fn=capture, arg=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit(arg=1)  # type: ignore[call-arg]


async def test_what_is_not_callable(executor: DirectorExecutor) -> None:
    assert isinstance(await outcome(asyncio.wrap_future(executor.submit(5))), TypeError)  # type: ignore[arg-type]


async def test_the_call_knows_its_device_and_its_job(director: Director) -> None:
    executor = director.as_executor(devices=[1], priority=4, name="embed")

    def work() -> tuple[int, int, str]:
        return current_device().index, current_job().priority, current_job().name

    assert await in_thread(lambda: executor.submit(work).result(PATIENCE)) == (1, 4, "embed")


async def test_a_model_is_loaded_though_the_function_does_not_get_it(director: Director) -> None:
    loads: list[int] = []
    executor = director.as_executor(model=Model(lambda device: loads.append(device.index)), devices=[1])
    assert await asyncio.wrap_future(executor.submit(capture, 1)) == ((1,), {})
    assert loads == [1]


async def test_map(executor: DirectorExecutor) -> None:
    def work() -> None:
        assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
        assert list(executor.map(pow, range(10), range(10), chunksize=3)) == list(map(pow, range(10), range(10)))
        results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
        assert [next(results), next(results)] == [(0, 1), (0, 1)]
        with pytest.raises(ZeroDivisionError):
            next(results)

    await in_thread(work)


async def test_map_gives_up_after_its_timeout(executor: DirectorExecutor, gate: Gate) -> None:
    def work() -> None:
        results = executor.map(lambda item: item if item < 2 else gate(None, item), range(4), timeout=0.05)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(TimeoutError):
            next(results)

    await in_thread(work)
    gate.open()


async def test_leaving_map_early_cancels_what_is_left(director: Director, gate: Gate) -> None:
    executor = director.as_executor(devices=[0])

    def work() -> None:
        results = executor.map(lambda item: gate(None, item), range(10))
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]

    gate.let(1)
    await in_thread(work)
    gate.open()
    await director.drain()
    assert len(gate.calls) <= 2


@pytest.mark.usefixtures("no_gc")
async def test_map_keeps_no_reference_to_what_it_has_given(executor: DirectorExecutor) -> None:
    class Thing:
        pass

    def work() -> None:
        for thing in executor.map(lambda _: Thing(), range(10)):
            watched = weakref.ref(thing)
            del thing
            wait_for(lambda watched=watched: watched() is None)

    await in_thread(work)


def wait_for(condition: Callable[[], object]) -> None:
    """`until`, on a thread: the slot's own leaves its frames a moment after it has settled the future."""
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came")


@pytest.mark.usefixtures("no_gc")
async def test_a_future_that_is_over_keeps_no_arguments(executor: DirectorExecutor) -> None:
    class Thing:
        def method(self) -> int:
            return 42

    async def given(keep: bool) -> weakref.ref[Thing]:
        thing = Thing()
        futures = [executor.submit(thing.method), executor.submit(capture, thing), executor.submit(capture, it=thing)]
        for future in futures[:1]:
            assert await asyncio.wrap_future(future) == 42
        await asyncio.wait([asyncio.wrap_future(future) for future in futures[:1]])
        del futures[1:]  # their results are the thing
        if keep:
            kept.extend(futures)
        return weakref.ref(thing)

    kept: list[Future[Any]] = []
    discarded = await given(keep=False)
    await until(lambda: discarded() is None)
    watched = await given(keep=True)
    await until(lambda: watched() is None)
    assert kept[0].result() == 42


async def test_states_and_results(executor: DirectorExecutor, gate: Gate) -> None:
    future = executor.submit(gate, None, "it")
    await gate.begun()
    assert (future.running(), future.done(), future.cancelled()) == (True, False, False)
    with pytest.raises(TimeoutError):
        await in_thread(future.result, 0.01)
    with pytest.raises(TimeoutError):
        await in_thread(future.exception, 0.01)
    gate.open()
    assert await in_thread(future.result, PATIENCE) == "it"
    assert (future.running(), future.done(), future.exception()) == (False, True, None)
    assert future.result() == "it"  # on the loop's own thread too, now that it is there


@pytest.mark.parametrize(
    "kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, asyncio.CancelledError]
)
async def test_whatever_a_call_raises_is_the_futures(
    director: Director, executor: DirectorExecutor, kind: type[BaseException], loop_errors: list[dict[str, Any]]
) -> None:
    def work() -> None:
        future = executor.submit(fail, kind)
        error = future.exception(PATIENCE)
        assert type(error) is kind
        with pytest.raises(kind, match="on purpose"):
            future.result(PATIENCE)

    await in_thread(work)
    await in_thread(work)  # the slots live
    assert await director.run(lambda _: 42) == 42
    assert loop_errors == []


async def test_the_traceback_shows_the_users_code(executor: DirectorExecutor) -> None:
    error = await in_thread(executor.submit(fail).exception, PATIENCE)
    assert error is not None
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback is not None
    assert traceback.tb_frame.f_code.co_name == "fail"


async def test_cancel_of_a_call_that_waits(director: Director, gate: Gate) -> None:
    executor = director.as_executor(devices=[0])
    seen: list[Future[Any]] = []
    running = executor.submit(gate, None, "runs")
    await gate.begun()
    waiting = executor.submit(gate, None, "never")
    waiting.add_done_callback(seen.append)
    assert await in_thread(waiting.cancel)
    assert (waiting.cancelled(), waiting.done(), waiting.cancel()) == (True, True, True)
    assert seen == [waiting]
    await until(lambda: director.stats().queued == 0)
    with pytest.raises(CancelledError):
        waiting.result()
    done, _ = await in_thread(concurrent.futures.wait, [waiting], PATIENCE)
    assert done == {waiting}
    assert not running.cancel()
    gate.open()
    assert await in_thread(running.result, PATIENCE) == "runs"
    assert not running.cancel()
    assert gate.items == ["runs"]


async def test_cancel_in_a_crowd_of_threads(director: Director) -> None:
    executor = director.as_executor()

    def work() -> tuple[int, int]:
        futures = [executor.submit(capture, item) for item in range(200)]
        for future in futures[::2]:
            future.cancel()
        done, pending = concurrent.futures.wait(futures, PATIENCE)
        assert not pending
        return len(done), sum(future.cancelled() for future in futures)

    results = await asyncio.gather(*[in_thread(work) for _ in range(4)])
    assert [done for done, _ in results] == [200] * 4
    stats = director.stats()
    assert stats.succeeded + stats.cancelled == 800
    assert stats.cancelled >= sum(cancelled for _, cancelled in results)


async def test_cancel_in_the_moment_when_a_worker_takes_the_call(
    director: Director, gate: Gate, loop_errors: list[dict[str, Any]]
) -> None:
    executor = director.as_executor(devices=[0])
    begun, end = threading.Event(), threading.Event()
    executor.submit(gate, None)
    await gate.begun()
    waiting = executor.submit(capture)
    following = executor.submit(lambda: (begun.set(), end.wait(PATIENCE)))
    assert waiting.cancel()
    gate.open()
    assert begun.wait(PATIENCE)  # the loop is busy, so that the worker is there before its job is cancelled
    end.set()
    await asyncio.wrap_future(following)
    await turns()
    assert waiting.cancelled()
    assert loop_errors == []


async def test_callbacks(executor: DirectorExecutor, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    future = executor.submit(gate, None, 42)
    future.add_done_callback(lambda it: seen.append(it.result()))
    future.add_done_callback(lambda _: fail())  # logged, and stops no other
    future.add_done_callback(lambda it: seen.append(it.done()))
    gate.open()
    await in_thread(future.result, PATIENCE)
    await until(lambda: len(seen) == 2)
    assert seen == [42, True]
    assert "exception calling callback" in caplog.text
    future.add_done_callback(seen.append)
    assert seen[-1] is future


async def test_wait(executor: DirectorExecutor, gate: Gate) -> None:
    held = executor.submit(gate, None)
    await gate.begun()

    def work() -> None:
        done, pending = concurrent.futures.wait([executor.submit(capture), held], PATIENCE, FIRST_COMPLETED)
        assert (len(done), pending) == (1, {held})
        done, pending = concurrent.futures.wait([executor.submit(fail), held], PATIENCE, FIRST_EXCEPTION)
        assert (len(done), pending) == (1, {held})
        assert concurrent.futures.wait([held], 0.01).not_done == {held}
        gate.open()
        done, pending = concurrent.futures.wait([executor.submit(capture), held], PATIENCE, ALL_COMPLETED)
        assert (len(done), pending) == (2, set())

    await in_thread(work)


async def test_as_completed(executor: DirectorExecutor, gate: Gate) -> None:
    held = executor.submit(gate, None, "held")
    await gate.begun()

    def work() -> None:
        futures = [executor.submit(capture, 1), held, executor.submit(capture, 2)]
        in_order = concurrent.futures.as_completed(futures, PATIENCE)
        first = {next(in_order), next(in_order)}
        assert first == {futures[0], futures[2]}
        with pytest.raises(TimeoutError):
            next(concurrent.futures.as_completed([held], 0))
        gate.open()
        assert list(in_order) == [held]

    await in_thread(work)


async def test_nothing_after_shutdown_but_the_director_lives(director: Director, executor: DirectorExecutor) -> None:
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(capture)
    executor.shutdown()  # again: nothing
    assert await director.run(lambda _: 42) == 42
    assert await asyncio.wrap_future(director.as_executor().submit(pow, 2, 3)) == 8


async def test_shutdown_waits_for_what_was_submitted(executor: DirectorExecutor, gate: Gate) -> None:
    futures = [executor.submit(gate, None, item) for item in range(6)]
    shutting = asyncio.create_task(in_thread(executor.shutdown))
    await gate.begun(2)
    await turns()
    assert not shutting.done()
    gate.open()
    await shutting
    assert [future.result() for future in futures] == list(range(6))


async def test_shutdown_without_waiting(executor: DirectorExecutor, gate: Gate) -> None:
    futures = [executor.submit(gate, None, item) for item in range(6)]
    executor.shutdown(wait=False)
    gate.open()
    done, _ = await in_thread(concurrent.futures.wait, futures, PATIENCE)
    assert len(done) == 6


async def test_shutdown_can_cancel_what_waits(executor: DirectorExecutor, gate: Gate) -> None:
    futures = [executor.submit(gate, None, item) for item in range(10)]
    await gate.begun(2)
    shutting = asyncio.create_task(in_thread(lambda: executor.shutdown(cancel_futures=True)))
    await until(lambda: sum(future.cancelled() for future in futures) == 8)
    gate.open()
    await shutting
    assert all(future.done() for future in futures)
    assert len(gate.calls) == 2


async def test_as_a_context_manager_on_a_thread(director: Director) -> None:
    def work() -> list[int]:
        with director.as_executor() as executor:
            return list(executor.map(abs, range(-5, 5)))

    assert await in_thread(work) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    executor = director.as_executor()

    def use() -> list[int]:
        with executor:
            futures = [executor.submit(abs, item) for item in range(-5, 5)]
        assert all(future.done() for future in futures)
        return [future.result() for future in futures]

    assert await in_thread(use) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


async def test_run_in_executor(executor: DirectorExecutor) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, pow, 2, 5) == 32
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(executor, fail)
    assert await asyncio.gather(*[loop.run_in_executor(executor, abs, -n) for n in range(50)]) == list(range(50))


async def test_run_in_executor_from_another_loop(executor: DirectorExecutor) -> None:
    async def elsewhere() -> int:
        return await asyncio.get_running_loop().run_in_executor(executor, pow, 2, 6)

    assert await in_thread(asyncio.run, elsewhere()) == 64


async def test_cancelling_who_awaits_run_in_executor_takes_the_job_out_of_the_queue(
    director: Director, gate: Gate
) -> None:
    executor = director.as_executor(devices=[0])
    held = executor.submit(gate, None, "held")
    await gate.begun()
    waiting = asyncio.get_running_loop().run_in_executor(executor, gate, None, "never")
    await turns()
    waiting.cancel()
    await until(lambda: director.stats().queued == 0)
    gate.open()
    assert await asyncio.wrap_future(held) == "held"
    assert gate.items == ["held"]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda executor, future: future.result(),
        lambda executor, future: future.result(timeout=1),
        lambda executor, future: future.exception(),
        lambda executor, future: executor.shutdown(),
        lambda executor, future: executor.__exit__(None, None, None),
        lambda executor, future: list(executor.map(abs, [-1])),
    ],
    ids=["result", "result with timeout", "exception", "shutdown", "with", "map"],
)
async def test_waiting_on_the_loops_own_thread_is_refused(
    executor: DirectorExecutor, gate: Gate, misuse: Callable[[DirectorExecutor, Future[Any]], Any]
) -> None:
    future = executor.submit(gate, None, 42)
    with pytest.raises(RuntimeError, match="wait forever"):
        misuse(executor, future)
    gate.open()
    assert await asyncio.wrap_future(future) == 42


async def test_deadlines_and_timeouts_reach_the_future(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", clock=clock) as director:
        executor = director.as_executor(deadline=5)
        running, waiting = executor.submit(gate, None), executor.submit(gate, None)
        await gate.begun()
        waiters = [asyncio.create_task(in_thread(each.exception, PATIENCE)) for each in (running, waiting)]
        await turns()
        clock.advance(5)
        phases = [getattr(await waiter, "phase", None) for waiter in waiters]
        assert phases == ["running", "queued"]
        with pytest.raises(JobTimeout):
            running.result()
        gate.open()


async def test_what_waits_fails_when_the_director_closes(gate: Gate) -> None:
    director = Director("simulated:1")
    await director.start()
    executor = director.as_executor()
    held = executor.submit(gate, None, "held")
    await gate.begun()
    waiting = executor.submit(gate, None, "never")
    waiter = asyncio.create_task(in_thread(waiting.exception, PATIENCE))
    waiter.add_done_callback(lambda _: gate.open())
    await director.close(0)
    assert isinstance(await waiter, DirectorClosed)
    assert waiting.done()
    assert await in_thread(held.result, PATIENCE) == "held"


async def test_closing_in_haste_frees_who_waits_for_a_call_that_never_ends(gate: Gate) -> None:
    director = Director("simulated:1")
    await director.start()
    future = director.as_executor().submit(gate, None)
    await gate.begun()
    await director.close(0, grace=0)  # abandons the thread
    await turns()
    assert isinstance(future.exception(), JobAborted)
    gate.open()


async def test_no_submission_after_the_close(director: Director, executor: DirectorExecutor) -> None:
    await director.close()
    with pytest.raises(Exception, match="closed"):
        executor.submit(capture)
    with pytest.raises(Exception, match="closed"):
        await in_thread(executor.submit, capture)


async def test_a_submission_that_meets_the_close_is_refused_or_cancelled() -> None:
    clock = ThreadClock()
    director = Director("simulated:1", clock=clock)
    await director.start()
    executor = director.as_executor()
    clock.hold()
    submitting = asyncio.create_task(in_thread(executor.submit, capture))
    await until(clock.asked.is_set)  # it has begun
    await director.close()
    clock.release()
    try:
        future = await submitting
    except DirectorClosed:
        return
    await turns()
    assert future.done()


async def test_context_variables_travel_from_the_submitting_thread(executor: DirectorExecutor) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    def work() -> str:
        variable.set("from the thread")
        return executor.submit(variable.get).result(PATIENCE)

    assert await in_thread(work) == "from the thread"


async def test_many_threads_at_once(executor: DirectorExecutor) -> None:
    def work(base: int) -> list[int]:
        return [future.result(PATIENCE) for future in [executor.submit(abs, base - n) for n in range(200)]]

    results = await asyncio.gather(*[in_thread(work, base) for base in range(6)])
    assert results == [[abs(base - n) for n in range(200)] for base in range(6)]


async def test_a_call_may_submit_another(executor: DirectorExecutor) -> None:
    def outer() -> int:
        return executor.submit(pow, 2, 4).result(PATIENCE)  # there are two slots

    assert await in_thread(lambda: executor.submit(outer).result(PATIENCE)) == 16


async def test_it_waits_for_room_by_itself(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        executor = director.as_executor()
        futures = [executor.submit(gate, None, item) for item in range(10)]
        gate.open()
        assert [await asyncio.wrap_future(future) for future in futures] == list(range(10))
