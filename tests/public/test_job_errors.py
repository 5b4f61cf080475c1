"""What a function raises reaches the caller as it is, and nothing of a job that is over is kept alive."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import gc
import pickle
import threading
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, outcome, until

from director import Director, JobState, Model, QueueFull, errors
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


class Boom(Exception):
    pass


class Thing:
    """Something that can be watched."""


def fail(_resource: Any, *_args: Any) -> None:
    raise Boom("in the user's code")


def innermost_first(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


async def test_an_exception_is_the_very_object_that_was_raised() -> None:
    raised = Boom("mine")

    def fail_with(_device: Any) -> None:
        raise raised

    async with Director("simulated:1") as director:
        job = director.submit(fail_with)
        with pytest.raises(Boom) as caught:
            await job
        assert caught.value is raised
        assert job.exception() is raised
        with pytest.raises(Boom) as again:
            await director.run(fail_with)
        assert again.value is raised


async def test_the_traceback_begins_in_the_users_code() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(fail)
        await asyncio.wait([job])
        error = job.exception()
        assert error is not None
        assert innermost_first(error) == ["fail"]
        error = await outcome(director.run(fail))
        assert innermost_first(error)[-1] == "fail"


async def test_the_traceback_of_an_error_from_c_code_shows_nothing_of_ours() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(int, 16)
        await asyncio.wait([job])
        error = job.exception()
        assert isinstance(error, TypeError)
        assert innermost_first(error) == []


async def test_cause_and_context_are_kept() -> None:
    def fail_with_cause(_device: Any) -> None:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise Boom("outer") from inner

    async with Director("simulated:1") as director:
        error = await outcome(director.run(fail_with_cause))
        assert isinstance(error, Boom)
        assert isinstance(error.__cause__, KeyError)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException, StopAsyncIteration])
async def test_whatever_a_function_raises_belongs_to_its_caller(kind: type[BaseException]) -> None:
    def fail_with(_device: Any) -> None:
        raise kind("on purpose")

    async with Director("simulated:1") as director:
        job = director.submit(fail_with)
        await asyncio.wait([job])
        assert type(job.exception()) is kind
        assert job.state is JobState.FAILED
        with pytest.raises(kind, match="on purpose"):
            await director.run(fail_with)
        assert await director.run(lambda _: "the slot lives") == "the slot lives"


async def test_a_function_that_raises_cancelled_error_ends_as_cancelled() -> None:
    def leave(_device: Any) -> None:
        raise asyncio.CancelledError

    async with Director("simulated:1") as director:
        job = director.submit(leave)
        await asyncio.wait([job])
        assert (job.state, job.cancelled()) == (JobState.CANCELLED, True)
        assert await director.run(lambda _: "the slot lives") == "the slot lives"


async def test_a_function_that_raises_stop_iteration_fails_with_a_runtime_error() -> None:
    async with Director("simulated:1") as director:
        error = await outcome(director.run(lambda _: next(iter([]))))
        assert isinstance(error, RuntimeError)
        assert isinstance(error.__cause__, StopIteration)


async def test_an_exception_that_nobody_asks_for_is_reported_once(loop_errors: list[dict[str, Any]]) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(fail)
        await asyncio.wait([job])
        del job
        gc.collect()
        assert [type(each["exception"]) for each in loop_errors] == [Boom]


async def freed(watched: weakref.ref[Any]) -> bool:
    """Whether it goes, the worker's thread having a moment to leave its frames."""
    try:
        await until(lambda: watched() is None)
    except TimeoutError:
        return False
    return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.gates.PATIENCE", 0.3)


def watched_thing() -> tuple[Thing, weakref.ref[Thing]]:
    thing = Thing()
    return thing, weakref.ref(thing)


@pytest.mark.usefixtures("no_gc", "impatient")
async def test_a_kept_handle_keeps_no_arguments() -> None:
    async with Director("simulated:1") as director:
        thing, watched = watched_thing()
        job = director.submit(lambda _device, it: type(it).__name__, thing)
        del thing
        assert await job == "Thing"
        assert await freed(watched)


@pytest.mark.usefixtures("no_gc", "impatient")
async def test_a_kept_handle_keeps_no_context_variables() -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
    async with Director("simulated:1") as director:
        thing, watched = watched_thing()
        token = variable.set(thing)
        job = director.submit(lambda _device: None)
        variable.reset(token)
        del thing, token
        await job
        assert await freed(watched)


@pytest.mark.usefixtures("no_gc", "impatient")
async def test_a_kept_handle_keeps_no_arguments_of_a_partial() -> None:
    async with Director("simulated:1") as director:
        thing, watched = watched_thing()
        job = director.submit(functools.partial(lambda _device, it: type(it).__name__, it=thing))
        del thing
        assert await job == "Thing"
        assert await freed(watched)


@pytest.mark.usefixtures("no_gc", "impatient")
async def test_a_cancelled_handle_keeps_no_arguments() -> None:
    async with Director("simulated:1") as director:
        thing, watched = watched_thing()
        job = director.submit(lambda _device, _it: None, thing)
        del thing
        assert job.cancel()
        assert await freed(watched)


@pytest.mark.usefixtures("no_gc", "impatient")
async def test_a_result_lives_as_long_as_its_handle() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(lambda _device: Thing())
        watched = weakref.ref(await job)
        assert not await freed(watched)
        del job
        assert await freed(watched)


async def by_submit(director: Director) -> Any:
    await director.submit(fail)


async def by_run(director: Director) -> Any:
    await director.run(fail)


async def by_map(director: Director) -> Any:
    async for _ in director.map(fail, [1]):
        pass


async def by_loader(director: Director) -> Any:
    await director.run(lambda _: None, model=Model(fail))


@pytest.mark.usefixtures("no_gc", "impatient")
@pytest.mark.parametrize("way", [by_submit, by_run, by_map, by_loader])
async def test_an_exception_is_freed_as_soon_as_the_caller_lets_it_go(way: Callable[[Director], Any]) -> None:
    # A traceback keeps the frames of the call, and these the tensors: memory of the device is free only after them.
    async def catch() -> weakref.ref[Boom]:
        try:
            await way(director)
        except Boom as error:
            return weakref.ref(error)
        raise AssertionError("it should have failed")

    async with Director("simulated:1") as director:
        watched = await catch()
        assert await freed(watched)


@pytest.mark.usefixtures("no_gc", "impatient")
async def test_an_exception_of_the_executor_face_is_freed_however_soon_it_is_looked_at() -> None:
    def look(future: Future[Any]) -> None:
        try:
            future.result()
        except Boom as error:
            watched.append(weakref.ref(error))

    def fail_later() -> None:
        assert go.wait(PATIENCE)
        raise Boom

    watched: list[weakref.ref[Boom]] = []
    go = threading.Event()
    async with Director("simulated:1") as director:
        future = director.as_executor().submit(fail_later)
        future.add_done_callback(look)
        del future
        go.set()
        await until(lambda: watched)
        assert await freed(watched[0])


@pytest.mark.parametrize("retry_after", [None, 0.5])
def test_a_refusal_names_the_option_that_waits_wherever_it_is_raised(retry_after: float | None) -> None:
    message = str(QueueFull(2, 2, retry_after))

    assert message.endswith("To wait for room, pass when_full='wait'.")
    assert ("Retry in about 0.5 s." in message) is (retry_after is not None)


DEVICE = simulated_devices(1)[0]


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (errors.QueueFull, (2, 3, 0.5, "acme")),
        (errors.DeadlineUnreachable, (1.0, 2.0)),
        (errors.DirectorClosed, ("closed",)),
        (errors.PlacementError, ("why",)),
        (errors.JobTimeout, ("queued",)),
        (errors.JobTimeout, ("queued", "start_within", 0.5)),
        (errors.JobTimeout, ("running", "timeout", 3)),
        (errors.WorkerDied, (-9, DEVICE)),
        (errors.JobAborted, (1.0,)),
        (errors.BatchMismatch, ("double", 4, "3 results")),
        (errors.SlowReader, (3.0, 16)),
        (errors.NoDevices, ("why",)),
        (errors.DiscoveryError, ("why",)),
        (errors.DeviceLost, (DEVICE, "why")),
    ],
)
def test_the_arguments_of_an_error_of_ours_are_its_facts(kind: type[errors.DirectorError], facts: Any) -> None:
    """`JobTimeout` is an `OSError` too, whose arguments would be an error number, a text and the name of a file."""
    error = kind(*facts)
    for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert same.args == facts
        assert str(same) == str(error)
        assert getattr(same, "errno", None) is getattr(same, "filename", None) is None
