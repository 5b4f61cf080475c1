"""What every executor must do, as a check that a test awaits."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from director import Director, DirectorClosed, JobTimeout, Model, WorkerDied
from director._device import simulated_devices
from director.events import ModelLoaded, ModelUnloaded
from director.testing import executor_calls as calls
from director.testing.clock import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from director import Executor, Job
    from director.events import Event

_LOOK = 0.002  # seconds between two looks at what another thread or process does
_LEAVING = 5.0  # seconds in which threads and processes that were told to end are gone


async def check_executor(executor: Executor | Literal["thread", "process"], *, patience: float = 60.0) -> None:
    """Open Directors with `executor` on simulated devices, and check what their callers rely on.

    Results, exceptions, arguments, batches, models, streams, cancellation, timeouts, the death of a worker, and that a
    close leaves no thread, child process or descriptor behind. What is called are functions of `director.testing`,
    which can be imported, and pickled by name; so are arguments and results.

    Args:
        executor: What a Director takes as `executor`.
        patience: Seconds in which each part of the check must end.

    Raises:
        AssertionError: Says which promise is broken.

    Cancellation: closes the Director that is open.
    """
    parts: list[tuple[str, Callable[[Any, str], Coroutine[Any, Any, None]]]] = [
        ("calls", _check_calls),
        ("batches", _check_batches),
        ("models", _check_models),
        ("streams", _check_streams),
        ("cancellation", _check_cancellation),
        ("timeouts", _check_timeouts),
        ("death of a worker", _check_death),
        ("closing at once", _check_close),
        ("after the close", _check_leftovers),  # the last: what is made once is there by now
    ]
    for name, check in parts:
        with tempfile.TemporaryDirectory() as folder:
            try:
                async with asyncio.timeout(patience):
                    await check(executor, folder)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error.__cause__
            except TimeoutError as error:
                raise AssertionError(f"{name}: not done in {patience:g} s") from error
            except Exception as error:
                raise AssertionError(f"{name}: {error!r}") from error


async def _check_calls(executor: Any, _folder: str) -> None:
    async with Director(simulated_devices(2), executor=executor) as director:
        for device in director.devices:
            told = await director.run(calls.echo, 1, "two", devices=device)
            _promise(told[0] == device.uuid, "a function without a model gets the slot's device first")
            _promise(told[1:] == ((1, "two"), {}), "a function gets the arguments of its caller after the resource")
        told = await director.run(partial(calls.echo, key=[3]), 1)
        _promise(told[1:] == ((1,), {"key": [3]}), "a partial's keywords reach the function")
        await _raises(director.run(calls.fail, "why", 7), ValueError, ("why", 7), "what a function raises")
        results = [told[1] async for told in director.map(calls.echo, range(20))]
        _promise(results == [(number,) for number in range(20)], "each job gets its own result")
        exact = await asyncio.wrap_future(director.as_executor().submit(calls.plain, 1, key=2))
        _promise(exact == ((1,), {"key": 2}), "the calls of `as_executor` get exactly what was given")
        async with director.lease() as device:
            _promise(device in director.devices, "a lease gives a device")


async def _check_batches(executor: Any, folder: str) -> None:
    async with Director(simulated_devices(1), executor=executor) as director:
        double = director.function(calls.double, max_batch_size=4)
        held = await _held(director, folder, "batch")
        jobs = [double.submit(item) for item in (1, 2, -3, 4)]  # they wait, and so share a call
        calls.note(folder, "batch-open")
        await held
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        _promise(outcomes[:2] == [2, 4] and outcomes[3] == 8, "each item of a batch gets its own result")
        _promise(_is(outcomes[2], ValueError, ("the item",)), "an exception that is returned fails its item alone")
        await _raises(double(0), ValueError, ("the batch",), "what a function of batches raises")
        _promise(await double(5) == 10, "a batch works after one that has failed")


async def _check_models(executor: Any, folder: str) -> None:
    events: list[Event] = []
    model = Model(partial(calls.load, folder), unload=partial(calls.unload, folder), name="model")
    vain = Model(partial(calls.load_in_vain, folder), name="vain")
    async with Director(simulated_devices(1), executor=executor, hooks=[events.append]) as director:
        (device,) = director.devices
        for number in range(3):
            told = await director.run(calls.plain, number, model=model)
            _promise(told == ((f"replica on {device.uuid}", number), {}), "a function gets the replica of its model")
        _promise(calls.noted(folder, "loaded") == 1, "a model is loaded once on a slot, and kept")
        resident = director.stats().devices[0].models
        _promise(resident == ("model",), "a load is told by `events.loaded`, before the call returns")
        for number in (1, 2):
            await _raises(director.run(calls.plain, model=vain), ValueError, ("the loader",), "what a loader raises")
            _promise(calls.noted(folder, "tried") == number, "a load that has failed is tried again by the next job")
        _promise(await director.run(calls.plain, model=model) is not None, "a model stays when another can't be loaded")
        _promise(not calls.noted(folder, "unloaded"), "a model is not unloaded before the close")
    _promise(calls.noted(folder, "unloaded") == 1, "a model is unloaded by `close`")
    heard = [type(event) for event in events if isinstance(event, (ModelLoaded, ModelUnloaded))]
    _promise(heard == [ModelLoaded, ModelUnloaded], "loads and their ends are told by `events.loaded` and `unloaded`")


async def _check_streams(executor: Any, _folder: str) -> None:
    async with Director(simulated_devices(1), executor=executor) as director:
        values = [value async for value in director.stream(calls.count, 100, buffer=4)]
        _promise(values == list(range(100)), "a stream gives every value of its generator, in order")
        failing, values = director.stream(calls.count, 3, True), []
        with suppress(ValueError):
            async for value in failing:
                values.append(value)
            _promise(False, "a stream raises what its generator raises")
        _promise(values == [0, 1, 2], "a stream gives the values that came before an error")
        endless = director.stream(calls.count, None, buffer=4)
        for number in range(3):
            _promise(await anext(endless) == number, "a stream gives values before its generator ends")
        await endless.aclose()
        _promise(await director.run(calls.plain) is not None, "a slot works after a reader has left its stream")


async def _check_cancellation(executor: Any, folder: str) -> None:
    async with Director(simulated_devices(1), executor=executor) as director:
        held = await _held(director, folder, "first")
        waiting = director.submit(calls.hold, folder, "waiting")
        _promise(waiting.cancel() and waiting.cancelled(), "a job that waits is cancelled at once")
        calls.note(folder, "first-open")
        _promise(await held == "first", "a call is not harmed when a job that waits is cancelled")
        held = await _held(director, folder, "second")
        _promise(held.cancel() and held.cancelled(), "a job that runs is cancelled at once for its caller")
        after = director.submit(calls.plain)
        calls.note(folder, "second-open")  # for functions that are not told
        _promise(await after is not None, "a slot works after a call whose caller has left")
    _promise(not calls.noted(folder, "waiting-begun"), "a job that was cancelled while it waited is never called")


async def _check_timeouts(executor: Any, folder: str) -> None:
    clock = TestClock()
    async with Director(simulated_devices(1), executor=executor, clock=clock) as director:
        held = await _held(director, folder, "running", timeout=5)
        waiting = director.submit(calls.plain, deadline=4)
        clock.advance(6)
        for job, phase in ((held, "running"), (waiting, "queued")):
            try:
                await job
                _promise(False, "a job whose time is up fails with JobTimeout")
            except JobTimeout as error:
                _promise(error.phase == phase, f"a job whose time was up while it was {phase} says so")
        after = director.submit(calls.plain)
        calls.note(folder, "running-open")
        _promise(await after is not None, "a slot works after a call whose time was up")


async def _check_death(executor: Any, folder: str) -> None:
    async with Director(simulated_devices(1), executor=executor) as director:
        try:
            await director.run(calls.die, os.getpid())
            _promise(False, "a call whose worker dies raises WorkerDied")
        except WorkerDied as error:
            _promise(error.device is director.devices[0], "WorkerDied is raised with the device of the slot")
        _promise(await director.run(calls.plain) is not None, "a slot works after its worker has died")
        told = await director.run(calls.die, os.getpid(), folder, retries=1, backoff=0)
        _promise(told == director.devices[0].uuid, "a job whose worker has died is tried again, with `retries`")


async def _check_close(executor: Any, folder: str) -> None:
    others = set(threading.enumerate())
    director = Director(simulated_devices(1), executor=executor)
    await director.start()
    try:
        held = await _held(director, folder, "closing")
        await director.close(0)
        _promise(held.done(), "a close ends the jobs of calls that go on, for their callers")
    finally:
        calls.note(folder, "closing-open")
        await director.close(0)
    await _settled(lambda: not _threads_of_slots() - others)  # one that can't be ended ends with its call
    with suppress(DirectorClosed):
        director.submit(calls.plain)
        _promise(False, "a Director that is closed takes no jobs")


async def _check_leftovers(executor: Any, _folder: str) -> None:
    gc.collect()
    before = _held_things()
    async with Director(simulated_devices(2), executor=executor) as director:
        for device in director.devices:
            await director.run(calls.plain, devices=device)
    del director

    def left() -> dict[str, set[Any]]:
        gc.collect()
        return {kind: more for kind, those in _held_things().items() if (more := those - before[kind])}

    with suppress(TimeoutError):
        async with asyncio.timeout(_LEAVING):
            await _settled(lambda: not left())
    _promise(not (what := left()), f"a close leaves nothing behind, but there are {what}")


# ---- helpers of the checks


def _promise(is_kept: bool, promise: str) -> None:
    if not is_kept:
        raise AssertionError(f"broken promise: {promise}")


def _is(error: object, kind: type[Exception], args: tuple[Any, ...]) -> bool:
    return type(error) is kind and error.args == args


async def _raises(call: Awaitable[Any], kind: type[Exception], args: tuple[Any, ...], what: str) -> None:
    try:
        await call
    except Exception as error:
        if not _is(error, kind, args):
            raise AssertionError(f"broken promise: {what} reaches the caller as it is, not as {error!r}") from error
        return
    _promise(False, f"{what} reaches the caller")


async def _held(director: Director, folder: str, gate: str, **options: Any) -> Job[str]:
    """A job that runs until its gate is opened; it has begun."""
    job = director.submit(calls.hold, folder, gate, **options)
    await _settled(lambda: job.done() or calls.noted(folder, f"{gate}-begun"))
    return job


async def _settled(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - another process tells by files
        await asyncio.sleep(_LOOK)


def _threads_of_slots() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("director:simulated")}


def _held_things() -> dict[str, set[Any]]:
    """Threads, child processes and descriptors of this process, as far as the system tells."""
    found: dict[str, set[Any]] = {"threads": set(threading.enumerate())}
    with suppress(OSError):
        found["descriptors"] = {each.name for each in Path("/proc/self/fd").iterdir()}
        found["children"] = {
            child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
        }
    return found
