"""Finalizers and signal handlers run between any two lines of the scheduler: they call it, and they raise."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, outcome
from harness.interrupt import Interrupter

from director import Director, Job, JobState, Model
from director.errors import DirectorClosed, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

pytestmark = pytest.mark.timeout(120)


class Interrupted(BaseException):
    """What a handler raises."""


def double(_resource: Any, value: int = 0) -> int:
    return 2 * value


def doubles(_resource: Any, values: list[int]) -> list[int]:
    return [2 * value for value in values]


class Scene:
    """One slot that is busy, and jobs of all kinds that wait for it."""

    def __init__(self, director: Director, gate: Gate) -> None:
        self.director = director
        self.gate = gate
        self.model = Model(lambda _device: "replica")
        self.batched = director.function(doubles, max_batch_size=2)
        self.held = director.function(doubles, max_batch_size=3, max_wait=60, batch_key=lambda value: value % 2)
        self.executor = director.as_executor()
        self.jobs: list[asyncio.Future[Any]] = []

    async def begin(self, rich: bool) -> Scene:
        self.jobs.append(self.director.submit(self.gate))
        await self.gate.begun()
        self.jobs += [self.director.submit(double, n) for n in range(3)]
        if rich:
            self.jobs += [self.director.submit(double, n, priority=n % 2, tenant=f"t{n}") for n in range(3)]
            self.jobs += [self.held.submit(n) for n in range(2)]
        return self

    async def end(self, spoiled: int = 0) -> None:
        """Everything that was accepted ends, the Director goes on, what it counts adds up, and it closes."""
        self.gate.open()
        async with asyncio.timeout(PATIENCE):
            assert await self.director.run(double, 21) == 42
            assert await self.director.run(double, 21, tenant="late", priority=-1) == 42
            await self.director.close()
        await asyncio.gather(*self.jobs, return_exceptions=True)
        stats = self.director.stats()
        assert (stats.queued, stats.running) == (0, 0)
        ended = sum(isinstance(job, Job) for job in self.jobs) + 2
        assert ended <= stats.succeeded + stats.failed + stats.cancelled <= ended + spoiled


SUBMISSIONS: dict[str, Callable[[Scene], Any]] = {
    "plain": lambda s: s.director.submit(double, 1),
    "priority": lambda s: s.director.submit(double, 1, priority=1),
    "tenant": lambda s: s.director.submit(double, 1, tenant="t1"),
    "deadline": lambda s: s.director.submit(double, 1, deadline=60),
    "model": lambda s: s.director.submit(double, 1, model=s.model),
    "batch": lambda s: s.batched.submit(1),
    "held batch": lambda s: s.held.submit(1),
    "executor": lambda s: asyncio.wrap_future(s.executor.submit(int)),
}


async def interrupt_each_line(rich: bool, step: Callable[[Scene], Any]) -> int:
    """Make a step again and again, a handler raising at one line further each time; returns the lines."""

    def act() -> None:
        raise Interrupted

    director, gate = Director("simulated:1", max_queue=None), Gate()
    await director.start()
    scene = await Scene(director, gate).begin(rich)
    interruptions = 0
    while True:
        with Interrupter(act, interruptions):
            try:
                job = step(scene)
            except Interrupted:
                interruptions += 1
                continue
        if isinstance(job, asyncio.Future):
            scene.jobs.append(job)
        break
    await scene.end(interruptions + 1)
    return interruptions


ACTS: dict[str, Callable[[Scene], Any]] = {
    "submits": lambda s: s.jobs.append(s.director.submit(double, 2)),
    "submits with options": lambda s: s.jobs.append(s.director.submit(double, 2, tenant="t9", deadline=50, priority=2)),
    "submits an item": lambda s: s.jobs.append(s.held.submit(3)),
    "gives to the executor": lambda s: s.executor.submit(int),
    "cancels": lambda s: s.jobs[2].cancel(),
    "asks": lambda s: (s.director.stats(), repr(s.director), repr(s.jobs)),
    "submits and cancels": lambda s: s.director.submit(double, 2).cancel(),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("step", SUBMISSIONS)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
async def test_a_handler_in_the_midst_of_a_submission_may_call_the_director(rich: bool, step: str, act: str) -> None:
    lost: list[Any] = []

    def count(scene: Scene) -> None:
        lost.append(ACTS[act](scene))

    director, gate = Director("simulated:1", max_queue=None), Gate()
    await director.start()
    scene = await Scene(director, gate).begin(rich)
    runtime = director._runtime
    assert runtime is not None
    with Interrupter(lambda: count(scene), None, lambda: runtime.scheduler._is_deciding) as interrupter:
        scene.jobs.append(SUBMISSIONS[step](scene))
    assert interrupter.lines > 3
    await scene.end(len(lost) + 1)


@pytest.mark.parametrize("act", ACTS)
async def test_a_handler_in_the_midst_of_a_cancellation_may_call_the_director(act: str) -> None:
    director, gate = Director("simulated:1", max_queue=None), Gate()
    await director.start()
    scene = await Scene(director, gate).begin(rich=True)
    runtime = director._runtime
    assert runtime is not None
    cancelled = scene.jobs[3]
    with Interrupter(lambda: ACTS[act](scene), None, lambda: runtime.scheduler._is_deciding) as interrupter:
        assert cancelled.cancel()
    assert interrupter.lines > 3
    await scene.end(interrupter.lines)
    assert cancelled.cancelled()


QUERIES: dict[str, Callable[[Scene, Any], Any]] = {
    "jobs": lambda s, runtime: runtime.scheduler.running(and_waiting=True),
    "has waiting": lambda s, runtime: runtime.has_waiting(runtime.device_slots[0]),
    "explain": lambda s, runtime: runtime.scheduler.explain(s.jobs[-1]),
    "stats": lambda s, runtime: s.director.stats(),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
async def test_a_handler_in_the_midst_of_a_query_may_call_the_director(rich: bool, query: str, act: str) -> None:
    director, gate = Director("simulated:1", max_queue=None), Gate()
    await director.start()
    scene = await Scene(director, gate).begin(rich)
    runtime: Any = director._runtime
    lost: list[Any] = []
    is_asking: Callable[[], bool] = runtime.scheduler._lock._is_owned
    with Interrupter(
        lambda: lost.append(ACTS[act](scene)), None, lambda: is_asking() and len(lost) < 100
    ) as interrupter:
        QUERIES[query](scene, runtime)
    assert interrupter.lines > 1
    await scene.end(len(lost) + 1)


async def test_a_worker_that_is_interrupted_as_it_looks_for_work_may_submit() -> None:
    """The collector runs a finalizer on the slot's thread."""
    director, gate = Director("simulated:1", max_queue=None), Gate()
    await director.start()
    scene = await Scene(director, gate).begin(rich=True)
    runtime, futures = director._runtime, []
    assert runtime is not None
    interrupter = Interrupter(
        lambda: (futures.append(scene.executor.submit(int)), director.stats()),
        None,
        lambda: runtime.scheduler._is_deciding and len(futures) < 50,
    )

    def look(_device: Any) -> None:
        interrupter.__enter__()

    scene.jobs.append(director.submit(look, priority=5))
    gate.let(1)
    await asyncio.gather(*map(asyncio.wrap_future, [await asyncio.to_thread(lambda: futures[0])] if futures else []))
    await scene.end(1000)
    assert len(futures) > 20
    assert {future.result() for future in futures} == {0}


async def test_a_refusal_that_comes_later_fails_the_job() -> None:
    director, gate = Director("simulated:1", max_queue=1), Gate()
    await director.start()
    blocker = director.submit(gate)
    await gate.begun()
    runtime = director._runtime
    assert runtime is not None
    late: list[Job[int]] = []
    with Interrupter(
        lambda: late.append(director.submit(double, 3)), None, lambda: runtime.scheduler._is_deciding and not late
    ):
        first = director.submit(double, 1)
    [job] = late
    assert job.state is JobState.QUEUED
    assert director.stats().queued == 2
    error = await outcome(job)
    assert isinstance(error, QueueFull)
    assert (error.limit, error.waiting) == (1, 1)
    assert job.state is JobState.FAILED
    gate.open()
    assert await first == 2
    await blocker
    await director.close()
    assert (director.stats().failed, director.stats().rejected) == (1, 0)


async def test_what_comes_in_the_midst_of_a_close_is_closed_too() -> None:
    director, gate = Director("simulated:1"), Gate()
    await director.start()
    scene = await Scene(director, gate).begin(rich=True)
    runtime = director._runtime
    assert runtime is not None
    late = [runtime.job_lifecycle.create_job(double, (4,), scene.jobs[0].options, False)]  # type: ignore[attr-defined]
    with Interrupter(
        lambda: late.append(runtime.job_lifecycle.create_job(double, (5,), late[0].options, False)),
        None,
        lambda: runtime.scheduler._is_deciding and len(late) < 9,
    ):
        runtime.retire()
    gate.open()
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert {type(each) for each in outcomes} <= {asyncio.CancelledError, DirectorClosed}
    await director.close()


@pytest.mark.parametrize("step", SUBMISSIONS)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
async def test_a_handler_may_raise_at_any_line_of_a_submission(rich: bool, step: str) -> None:
    assert await interrupt_each_line(rich, SUBMISSIONS[step]) > 20


@pytest.mark.parametrize("at", [2, 5, 8])
async def test_a_handler_may_raise_at_any_line_of_a_cancellation(at: int) -> None:
    def cancel(scene: Scene) -> Any:
        return scene.jobs[at].cancel()

    assert await interrupt_each_line(True, cancel) > 10


async def test_the_collector_may_run_finalizers_that_call_the_director_anywhere() -> None:
    """A forgotten coroutine cancels its job in its `finally`; the collector comes every few objects."""
    loop = asyncio.get_running_loop()

    async def forget(director: Director, number: int) -> None:
        job = director.submit(double, number, tenant=number % 3)
        try:
            await loop.create_future()
        finally:
            with suppress(RuntimeError):  # the collector may come on a slot's thread, which is told to ask the loop
                job.cancel()

    before = gc.get_threshold()
    async with Director("simulated:2", max_queue=None) as director:
        gc.set_threshold(7, 1, 1)
        try:
            for number in range(1000):
                coroutine = forget(director, number)
                coroutine.send(None)
                cycle: list[Any] = [coroutine]
                cycle.append(cycle)
                del coroutine, cycle
                if number % 100 == 0:
                    await asyncio.sleep(0)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        await asyncio.wait_for(director.drain(), PATIENCE)
        stats = director.stats()
        assert stats.succeeded + stats.cancelled == 1000


# What the handler raises within a callback of the collector (Hypothesis has one) is ignored by the interpreter.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
@pytest.mark.parametrize("options", [{}, {"tenant": "a", "priority": 1, "deadline": 60}], ids=["plain", "rich"])
async def test_real_signals_whose_handler_raises_leave_a_whole_scheduler(options: dict[str, Any]) -> None:
    armed = False

    def handler(_number: int, _frame: Any) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    jobs: list[Job[int]] = []
    interruptions = 0
    try:
        async with Director("simulated:2", max_queue=None) as director:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for number in range(4000):
                try:
                    armed = True
                    job = director.submit(double, number, **options)
                    armed = False
                    jobs.append(job)
                except Interrupted:
                    interruptions += 1
                if jobs and number % 50 == 0:
                    await jobs[-1]
            signal.setitimer(signal.ITIMER_REAL, 0)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*jobs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interruptions
    stats = director.stats()
    assert (stats.queued, stats.running, stats.failed) == (0, 0, 0)
    assert len(jobs) <= stats.succeeded <= len(jobs) + interruptions


def is_free(lock: Any) -> bool:
    """Whether no other thread holds it."""
    if lock.acquire(timeout=PATIENCE):
        lock.release()
        return True
    return False


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
async def test_a_handler_may_raise_while_a_submission_waits_for_the_lock() -> None:
    """Its exception comes out as it is, and the lock is free when the thread that had it lets it go."""
    main, called = threading.get_ident(), threading.Event()
    raised: list[bool] = []

    def handler(_number: int, frame: FrameType | None) -> None:
        called.set()
        if frame is not None and frame.f_code.co_name == "admit" and not raised:
            raised.append(True)
            raise Interrupted

    director = Director("simulated:1", max_queue=None)
    await director.start()
    runtime = director._runtime
    assert runtime is not None
    holds = threading.Event()

    def hold() -> None:
        with runtime.scheduler._lock:
            holds.set()
            while not raised:
                called.clear()
                signal.pthread_kill(main, signal.SIGUSR1)
                called.wait(1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=hold, daemon=True)
    try:
        thread.start()
        holds.wait()
        with pytest.raises(Interrupted):
            director.submit(double, 1)
    finally:
        raised.append(True)
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert not runtime.scheduler._is_deciding
    assert await asyncio.to_thread(is_free, runtime.scheduler._lock), "the lock is held by the main thread"
    async with asyncio.timeout(PATIENCE):
        assert await director.run(double, 21) == 42
        await director.close()
