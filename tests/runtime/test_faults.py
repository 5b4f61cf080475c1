"""Functions, loaders and hooks that raise what nobody should raise: never a hang, never a lost slot."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

import pytest
from harness.stage import PATIENCE, Stage

from director import Director, Model
from director._jobs.state import JobState
from director.events import JobSucceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.stage import Stage

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


async def test_a_function_from_a_namespace_without_a_name(make_stage: Make) -> None:
    """`exec` and templates make such functions; its frame has no `__name__`."""
    stage = await make_stage()
    namespace: dict[str, Any] = {"__name__": None}
    exec("def fail(device): raise ValueError('here')", namespace)
    job = stage.director.submit(namespace["fail"])
    await stage.quiet()
    assert isinstance(job.exception(), ValueError)


# ---- hooks


@pytest.mark.parametrize("error", [ValueError("a hook's own"), asyncio.CancelledError()], ids=repr)
async def test_a_hook_that_raises_changes_nothing(make_stage: Make, error: BaseException) -> None:
    def hook(event: Any) -> None:
        if isinstance(event, JobSucceeded):
            raise error

    stage = await make_stage(hooks=[hook])
    jobs = [stage.director.submit(lambda device: 1) for _ in range(20)]
    await stage.quiet()
    assert all(job.done() for job in jobs)
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
