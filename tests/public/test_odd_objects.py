"""Users' odd callables and exceptions through every door: each job ends, those beside it notice nothing, counts add up.

With hooks of every kind too, which are given what these objects are made into.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import pytest
from harness.odd import CALLABLES, EXCEPTIONS

from director import Device, DeviceLost, Director, Health, Job, Model, WorkerDied
from director._untrusted.objects import traceback_of
from director.logs import Logs
from director.testing import simulated_devices
from director.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATIENCE = 20.0


def same(_: Device, value: Any) -> Any:
    return value


@contextlib.asynccontextmanager
async def beside_innocents(watched: bool) -> AsyncIterator[Director]:
    """A Director of three devices, on which jobs of others run and wait while the odd one ends."""
    heard: list[object] = []
    hooks: list[Any] = [Timeline(memory=False), Logs(), heard.append] if watched else []
    gate = threading.Event()
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    async with Director("simulated:3", hooks=hooks) as director:
        running = director.submit(lambda _: gate.wait(PATIENCE), devices="simulated:1")
        waiting = [director.submit(same, number) for number in range(8)]
        try:
            yield director
        finally:
            gate.set()
        assert await asyncio.wait_for(asyncio.gather(running, *waiting), PATIENCE) == [True, *range(8)]
        assert director.healthy
        stats = director.stats()
        assert stats.queued == stats.running == 0
        ended = stats.succeeded + stats.failed + stats.cancelled
    if watched:
        names = [type(event).__name__ for event in heard]
        assert ended == names.count("JobSubmitted")
        assert ended == sum(names.count(name) for name in ("JobSucceeded", "JobFailed", "JobCancelled"))
        assert len(hooks[0].records()) == ended
        repr(hooks[0].records())
    assert not reports


async def end_of(job: Job[Any]) -> Any:
    """What became of a job; nothing is asked of an exception."""
    await asyncio.wait([job], timeout=PATIENCE)
    assert job.done()
    if job.cancelled():
        return asyncio.CancelledError
    error = job.exception()
    return job.result() if error is None else type(error)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(("fn", "name"), CALLABLES.values(), ids=CALLABLES)
async def test_a_job_of_an_odd_callable_ends_and_has_a_name(fn: Any, name: str, watched: bool) -> None:
    async with beside_innocents(watched) as director:
        jobs = [director.submit(fn), director.function(fn).submit(), director.submit(fn, name="mine")]
        jobs.append(director.function(fn, max_batch_size=4).submit(1))
        call = director.as_executor().submit(fn)
        for job in jobs:
            await end_of(job)
        assert [job.name for job in jobs] == [name, name, "mine", name]
        assert name in repr(jobs[0])
        with contextlib.suppress(BaseException):
            await asyncio.wrap_future(call)
        with contextlib.suppress(BaseException):
            assert len([end async for end in director.map(fn, [1, 2], return_exceptions=True)]) == 2


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("make", EXCEPTIONS.values(), ids=EXCEPTIONS)
async def test_an_odd_exception_fails_its_own_job_only(make: Callable[[], BaseException], watched: bool) -> None:
    def fail(*_: Any) -> Any:
        raise make()

    try:
        fail()
    except BaseException as error:
        expected = RuntimeError if type(error) is StopIteration else type(error)
    async with beside_innocents(watched) as director:
        one = director.submit(fail)
        again = director.submit(fail, retries=2, retry_on=Exception)
        loaded = director.submit(same, 1, model=Model(fail))
        warm = director.submit(same, 1, model=Model(lambda _: 1, warmup=fail, unload=fail))
        together = [director.function(fail, max_batch_size=4).submit(number) for number in range(3)]
        apart = director.function(fail, max_batch_size=4, isolate_failures=True)
        alone = [apart.submit(number) for number in range(3)]
        assert await end_of(one) is expected
        assert await end_of(again) is expected
        for job in (loaded, warm):
            end = await end_of(job)
            assert end is expected or end is RuntimeError  # as which a loader's cancellation comes
        for job in (*together, *alone):
            assert await end_of(job) is expected
        call = director.as_executor().submit(fail)
        done, _ = await asyncio.to_thread(wait, [call], PATIENCE)
        assert done


@pytest.mark.parametrize("make", EXCEPTIONS.values(), ids=EXCEPTIONS)
async def test_an_odd_exception_in_the_place_of_an_item_fails_that_item_only(make: Callable[[], BaseException]) -> None:
    def some(_: Device, items: list[int]) -> list[Any]:
        return [make() if item == 1 else item for item in items]

    async with beside_innocents(False) as director:
        batch = director.function(some, max_batch_size=4)
        jobs = [batch.submit(number) for number in range(4)]
        ends = [await end_of(job) for job in jobs]
        assert ends[0] == 0
        assert ends[2:] == [2, 3]
        is_result = not issubclass(type(make()), Exception)  # what isn't an `Exception` is a result like any other
        mine = type(ends[1]) if is_result else ends[1]
        assert mine in (type(make()), RuntimeError)


@pytest.mark.parametrize("make", EXCEPTIONS.values(), ids=EXCEPTIONS)
async def test_an_odd_exception_of_a_stream_comes_after_its_values(make: Callable[[], BaseException]) -> None:
    def values(_: Device) -> Any:
        yield 1
        raise make()

    async with beside_innocents(False) as director:
        seen, ended = [], False
        try:
            async for value in director.stream(values):
                seen.append(value)  # noqa: PERF401 - what came before it raised counts
        except BaseException:
            ended = True
        assert seen == [1]
        assert ended


async def test_our_frames_are_taken_off_an_exception_that_hides_its_traceback() -> None:
    def fail(_: Device) -> None:
        raise EXCEPTIONS["closed"]()

    async with Director("simulated:1") as director:
        job = director.submit(fail)
        await asyncio.wait([job])
        error = job.exception()
        assert error is not None
        entries = traceback_of(error)
        assert entries is not None
        assert entries.tb_frame.f_code.co_name == "fail"


class Pretender:
    """Says that it is an exception."""

    __class__ = ValueError  # type: ignore[assignment]


class NoClass:
    """Says nothing of what it is."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError


class Deaf:
    """A result of which nothing may be asked."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError(name)

    __bool__ = __len__ = __iter__ = __eq__ = __hash__ = __repr__ = __await__ = __getattribute__  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Pretender, NoClass, Deaf])
async def test_an_odd_value_is_a_result(kind: type) -> None:
    def some(_: Device, items: list[int]) -> list[Any]:
        return [kind() for _ in items]

    def values(_: Device) -> Any:
        yield kind()

    async with beside_innocents(True) as director:
        job = director.submit(lambda _: kind())
        jobs = [director.function(some, max_batch_size=4).submit(number) for number in range(3)]
        for each in (job, *jobs):
            await asyncio.wait([each], timeout=PATIENCE)
            assert type(each.result()) is kind
        assert [type(value) async for value in director.stream(values)] == [kind]


class Longer(list):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 100


class Refusing(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise ZeroDivisionError

    __len__ = __iter__


@pytest.mark.parametrize("make", [Longer, Refusing, iter, lambda _: None, lambda _: Deaf(), lambda _: Mapping()])
async def test_a_batch_that_returns_something_odd_fails_alone(make: Callable[[list[int]], Any]) -> None:
    async with beside_innocents(True) as director:
        batch = director.function(lambda _, items: make(items), max_batch_size=4)
        jobs = [batch.submit(number) for number in range(3)]
        for job in jobs:
            await asyncio.wait([job], timeout=PATIENCE)
            assert job.exception() is not None


class Mapping(dict):  # type: ignore[type-arg]
    """Nothing that has results in an order."""


async def test_a_value_may_call_back_and_raise_when_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finalizer runs in the midst of a delivery, or on a slot's thread."""
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: raised.append(what.exc_type))

    class Caller:
        def __init__(self, director: Director, others: list[Job[Any]]) -> None:
            self.director, self.others = director, others

        def __del__(self) -> None:
            if threading.current_thread() is threading.main_thread():
                self.director.submit(same, "from a finalizer")
                self.others[0].cancel()
            raise ZeroDivisionError

    async with beside_innocents(False) as director:
        others = [director.submit(same, 1)]
        jobs = [director.submit(lambda _, __: None, Caller(director, others)) for _ in range(3)]
        jobs += [director.submit(lambda _: Caller(director, others)) for _ in range(3)]
        await asyncio.wait(jobs, timeout=PATIENCE)
        assert all(job.done() for job in jobs)
        del jobs
        await asyncio.wait(others, timeout=PATIENCE)
    assert set(raised) == {ZeroDivisionError}


@pytest.mark.parametrize("kind", [WorkerDied, DeviceLost])
async def test_a_loss_of_another_director_is_an_error_like_any_other(kind: Callable[..., BaseException]) -> None:
    """A function that uses a Director of its own lets its errors through; nothing was lost here."""
    [elsewhere] = simulated_devices(1)
    calls = []

    def fail(_: Device) -> None:
        calls.append(1)
        raise kind(-9, elsewhere) if kind is WorkerDied else kind(elsewhere)

    async with beside_innocents(True) as director:
        jobs = [director.submit(fail, retries=2) for _ in range(6)]
        for job in jobs:
            assert await end_of(job) is kind
        assert len(calls) == 6
        assert len(director.stats().devices) == 3
        assert all(device.health is Health.HEALTHY for device in director.stats().devices)
