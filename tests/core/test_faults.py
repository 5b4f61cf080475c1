"""Functions, hooks, clocks and surroundings that do what nobody should do: never a hang, never a lost slot."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from core.stage import PATIENCE, Stage, Watch

from director import Director, Model
from director._core.dispatch import Dispatch
from director._core.slot_thread import SlotThread
from director._core.states import DirectorState, JobState
from director.errors import DirectorClosed, JobError
from director.events import JobSucceeded
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Make = Callable[..., Awaitable[Stage]]


# ---- what functions and loaders raise


class WithoutText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class ManyArguments(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__()
        self.facts = (one, two)


class Equal(Exception):
    def __eq__(self, other: object) -> bool:
        raise ValueError("no equality")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("no truth")


RAISED: list[BaseException] = [
    ValueError("plain"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseException("the base"),
    concurrent.futures.CancelledError(),
    asyncio.InvalidStateError(),
    StopAsyncIteration(),
    ExceptionGroup("two", [ValueError(), TypeError()]),
    WithoutText(),
    ManyArguments(1, two=2),
    Equal(),
]


async def raised_by(director: Director, fn: Any, **options: Any) -> BaseException:
    """What a caller gets; SystemExit must not pass through a task, so it is taken from the job."""
    job = director.submit(fn, **options)
    await asyncio.wait_for(asyncio.wait([job]), PATIENCE)
    if job.cancelled():
        return asyncio.CancelledError()
    error = job.exception()
    assert error is not None
    return error


def throw(error: BaseException) -> Any:
    raise error


@pytest.mark.every_loop
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_what_a_function_raises_reaches_the_caller_as_it_is(error: BaseException) -> None:
    async with Director("cpu") as director:
        assert await raised_by(director, lambda device: throw(error)) is error
        assert await director.run(lambda device: "goes on") == "goes on"
        assert director.stats().failed == 1


async def test_a_function_that_raises_cancelled_error_is_cancelled() -> None:
    async with Director("cpu") as director:
        error = await raised_by(director, lambda device: throw(asyncio.CancelledError("by itself")))
        assert isinstance(error, asyncio.CancelledError)
        with pytest.raises(asyncio.CancelledError):
            await director.run(lambda device: throw(asyncio.CancelledError()))
        assert director.stats().cancelled == 2


class Stop(StopIteration):
    pass


@pytest.mark.parametrize("error", [StopIteration(5), Stop(5)], ids=repr)
async def test_a_function_that_raises_stop_iteration(error: StopIteration) -> None:
    """A future can't hold it."""
    async with Director("cpu") as director:
        raised = await raised_by(director, lambda device: throw(error))
        assert isinstance(raised, RuntimeError)
        assert raised.__cause__ is error


async def test_a_loader_that_raises_stop_iteration(make_stage: Make) -> None:
    """As easily as by `next(iter(files))`; the other jobs of the batch wait too."""
    stage = await make_stage()
    model = Model(lambda device: next(iter([])))
    jobs = [stage.director.submit(lambda replica: replica, model=model) for _ in range(3)]
    other = stage.director.submit(lambda device: "other")
    await stage.quiet()
    assert all(job.state is JobState.FAILED and job.done() for job in jobs)
    assert all(isinstance(job.exception(), RuntimeError) for job in jobs)
    assert await other == "other"


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_what_a_loader_raises_reaches_all_who_wait(make_stage: Make, error: BaseException) -> None:
    stage = await make_stage()
    model = Model(lambda device: throw(error))
    jobs = [stage.director.submit(lambda replica: replica, model=model) for _ in range(3)]
    await stage.quiet()
    assert [job.exception() for job in jobs] == [error] * 3 if type(error) is not Equal else True
    assert stage.director.stats().failed == 3


@pytest.mark.xfail(strict=True, reason="`strip` fails on it, the worker dies and takes the job along: a hang")
async def test_a_function_from_a_namespace_without_a_name(make_stage: Make) -> None:
    """`exec` and templates make such functions; its frame has no `__name__`."""
    stage = await make_stage()
    namespace: dict[str, Any] = {"__name__": None}
    exec("def fail(device): raise ValueError('here')", namespace)
    job = stage.director.submit(namespace["fail"])
    await stage.quiet()
    assert isinstance(job.exception(), ValueError)


# ---- hooks


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a hook's own"),
        pytest.param(
            asyncio.CancelledError(),
            marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="the rest of the batch hangs"),
        ),
    ],
    ids=repr,
)
async def test_a_hook_that_raises_changes_nothing(make_stage: Make, error: BaseException) -> None:
    errors = [error]

    def hook(event: Any) -> None:
        if isinstance(event, JobSucceeded) and errors:
            raise error

    stage = await make_stage(hooks=[hook])
    jobs = [stage.director.submit(lambda device: 1) for _ in range(20)]
    await stage.quiet()
    done = [job.done() for job in jobs]
    errors.clear()
    stage._crew.outbox.ring()
    await stage.quiet()
    assert all(done)
    assert stage.director.stats().succeeded == 20


async def test_a_hook_may_use_the_director(make_stage: Make) -> None:
    """It is called on the loop and under no lock."""
    totals: list[int] = []

    def hook(event: Any) -> None:
        stats = stage.director.stats()
        totals.append(stats.queued + stats.running + stats.succeeded + stats.failed + stats.cancelled)
        if isinstance(event, JobSucceeded) and event.job < 5:
            stage.director.submit(lambda device: 1)

    stages: list[Stage] = []

    class Late:
        def __call__(self, event: Any) -> None:
            if stages:
                hook(event)

    stage = await make_stage(hooks=[Late()])
    stages.append(stage)
    stage.director.submit(lambda device: 1)
    await stage.quiet()
    assert stage.director.stats().succeeded == 5
    assert set(totals) <= {1, 2, 3, 4, 5}
    assert totals == sorted(totals)


# ---- the totals, at any moment


def total(director: Director) -> int:
    stats = director.stats()
    return stats.queued + stats.running + stats.succeeded + stats.failed + stats.cancelled


@pytest.mark.parametrize(
    "outcome",
    [
        "result",
        pytest.param(
            ValueError("its own"),
            marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="an error travels as a call"),
        ),
    ],
    ids=repr,
)
async def test_a_job_whose_outcome_is_on_its_way_is_counted(make_stage: Make, outcome: Any) -> None:
    stage = await make_stage()
    (gate, job), (following, _) = stage.submit(), stage.submit()
    await stage.quiet()
    gate.open(outcome)
    stage.wait(lambda: following.is_blocking)  # the loop has not heard of the first yet
    counted = total(stage.director)
    await asyncio.wait([job])
    job.exception()
    assert counted == total(stage.director) == 2


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="withdrawn and not delivered: in no count")
async def test_jobs_that_a_failed_load_takes_along_are_counted(make_stage: Make) -> None:
    stage = await make_stage()
    loading = stage.gate()
    model = Model(loading)
    jobs = [stage.director.submit(lambda replica: 1, model=model) for _ in range(3)]
    await stage.until(lambda: loading.is_blocking)
    gate, _ = stage.submit()
    loading.open(ValueError("no model"))
    stage.wait(lambda: gate.is_blocking)  # the loop has not heard of the others yet
    counted = total(stage.director)
    await asyncio.wait(jobs)
    assert all(isinstance(job.exception(), ValueError) for job in jobs)
    assert counted == total(stage.director) == 4


# ---- the Director fails


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


@pytest.mark.xfail(
    strict=True, reason="a slot that was hired when the Director failed stays so, and close waits for it"
)
async def test_no_thread_can_be_started(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is out of threads."""
    stage = await Stage(watch, "cpu:2").open()
    with monkeypatch.context() as patch:
        patch.setattr(SlotThread, "submit", lambda *args: throw(RuntimeError("can't start new thread")))
        job = stage.director.submit(lambda device: 1)
        await asyncio.wait_for(asyncio.wait([job]), PATIENCE)
    assert isinstance(job.exception(), JobError)
    closing = asyncio.create_task(stage.director.close())
    await asyncio.wait([closing], timeout=0.5)
    closed = closing.done()
    if not closed:
        closing.cancel()
        await asyncio.wait([closing])
    assert closed


class BrokenClock(TestClock):
    """Fails on a slot's thread, once, when it is told to."""

    __test__ = False
    is_broken = False

    def time(self) -> float:
        if self.is_broken and threading.current_thread().name.startswith("director:cpu"):
            self.is_broken = False
            raise ZeroDivisionError("the clock is broken")
        return super().time()


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="its slot has dropped the job by then",
)
async def test_a_worker_that_fails_tells_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hangs: neither who waits nor whose job the worker had."""
    clock = BrokenClock()
    stage = await Stage(Watch().install(monkeypatch), clock=clock).open()
    (gate, job), (_, waiting) = stage.submit(), stage.submit()
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


# ---- loops and threads


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


def collect_after(leave: Callable[[], list[SlotThread]]) -> None:
    """Call `leave`, which returns threads of slots; let them end, and let the Director become garbage."""
    for thread in leave():
        thread.shutdown()  # joins it
    gc.collect()


def threads_of(director: Director) -> list[SlotThread]:
    assert director._crew is not None
    return [slot.thread for slot in director._crew.dispatch.slots]


def leave_in_the_middle() -> list[SlotThread]:
    """Close a loop while a job runs; returns the threads of the slots."""
    go, begun = threading.Event(), threading.Event()
    director = Director("cpu")
    loop = asyncio.new_event_loop()

    async def begin() -> list[SlotThread]:
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
    async def main() -> list[SlotThread]:
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


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="closed by the collector only")
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


async def test_a_thread_submits_as_the_director_closes(make_stage: Make) -> None:
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
    await stage.director.close()
    clock.go.set()
    submitter.join()
    await stage.quiet()
    (outcome,) = outcomes
    assert isinstance(outcome, DirectorClosed) or outcome.done(), "the future is never settled"
