"""What a Director promises holds where an actor makes the calls: one test for each promise."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Recorder, outcome, rested, until

import director
from director import Director, DirectorClosed, JobAborted, JobTimeout, Model, QueueFull
from director.events import ModelFailed, ModelLoaded, ModelUnloaded
from director.testing import TestClock
from executors.ray import work
from executors.ray.conftest import SLOW
from executors.ray.test_death import later

if TYPE_CHECKING:
    from collections.abc import Iterator

entered: list[str] = []
request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="-")


@contextlib.contextmanager
def around(name: str) -> Iterator[None]:
    entered.append(name)
    try:
        yield
    finally:
        entered.remove(name)


@contextlib.contextmanager
def broken() -> Iterator[None]:
    raise KeyError("around")
    yield


def names(_resource: Any, *_args: Any) -> list[str]:
    return list(entered)


def plain_names() -> list[str]:
    return list(entered)


def batch_of_names(_resource: Any, items: list[int]) -> list[list[str]]:
    return [list(entered)] * len(items)


def stream_of_names(_resource: Any) -> Iterator[list[str]]:
    yield list(entered)
    yield list(entered)


def is_current(replica: Any) -> bool:
    return director.current_replica() is replica


def current_label() -> str:
    return str(director.current_replica().label)


def swap_request(_device: Any) -> str:
    before = request.get()
    request.set("changed")
    return before


def raise_chained(_device: Any) -> None:
    try:
        raise LookupError("the first")
    except LookupError as error:
        raise ValueError("the second") from error


def add(_device: Any, left: int, right: int = 0, *, scale: int = 1) -> int:
    return (left + right) * scale


class LoadWhen:
    """A loader that waits until there is a file; `broken` names the file without which it raises."""

    def __init__(self, path: Path, *, begun: Path) -> None:
        self.path = str(path)
        self.begun = str(begun)

    def __call__(self, device: Any) -> work.Replica:
        import time

        Path(self.begun).touch()
        while not Path(self.path).exists():
            time.sleep(0.01)
        return work.Replica(device)


class LoadFrom:
    """A loader that raises on the first device that calls it, and goes on raising there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, device: Any) -> work.Replica:
        if not self.path.exists():
            self.path.write_text(device.uuid)
        if self.path.read_text() == device.uuid:
            raise FileNotFoundError("no weights here")
        return work.Replica(device)


def trace(_replica: Any, path: str) -> None:
    Path(path).touch()


# ---- how a call is made


async def test_a_stream_is_queued_when_it_is_called(solo: Any) -> None:
    async with Director(executor=solo, max_queue=1) as one, one.lease():
        waiting = one.stream(work.count_up, 3)
        assert one.stats().queued == 1
        with pytest.raises(QueueFull):
            one.stream(work.count_up, 3)
        assert waiting.job.state.name == "QUEUED"
        await waiting.aclose()


async def test_keywords_reach_the_function(single: Director) -> None:
    assert await single.function(add)(1, right=2, scale=3) == 9
    assert await single.function(add).submit(1, scale=2) == 2
    assert await single.run(partial(add, right=1), 2) == 3


async def test_context_managers_are_entered_around_each_call(solo: Any) -> None:
    model = Model(work.load, around=partial(around, "model"))
    async with Director(executor=solo, around=partial(around, "director")) as one:
        both = ["director", "model"]
        assert await one.run(names, model=model) == both
        assert await one.run(names, 1) == ["director"]
        assert await one.function(batch_of_names, max_batch_size=2, model=model)(1) == both
        assert [found async for found in one.stream(stream_of_names, model=model)] == [both, both]
        plain = one.as_executor(model=model).submit(plain_names)
        assert await asyncio.wrap_future(plain) == both
        assert await one.run(names, model=model) == both, "all of them were left"
        error = await outcome(one.run(work.use, model=Model(work.load, around=broken)))
        assert isinstance(error, KeyError)


async def test_a_context_manager_that_no_actor_can_import(solo: Any) -> None:
    inside: list[str] = []

    @contextlib.contextmanager
    def local() -> Iterator[None]:
        inside.append("local")
        yield

    async with Director(executor=solo, around=local) as one:
        assert await one.run(lambda _device: list(inside)) == ["local"]


async def test_the_current_replica(single: Director) -> None:
    model = Model(work.load)
    assert await single.run(is_current, model=model)
    label = await asyncio.wrap_future(single.as_executor(model=model).submit(current_label))
    assert label == single.devices[0].label
    given = single.as_executor(model=model, resource=True).submit(is_current)
    assert await asyncio.wrap_future(given)
    where = single.as_executor(resource=True).submit(work.echo, 5)
    assert await asyncio.wrap_future(where) == 5


async def test_a_call_begins_in_a_clean_context(single: Director) -> None:
    request.set("of the caller")
    assert [await single.run(swap_request) for _ in range(3)] == ["-"] * 3


async def test_an_exception_has_its_cause(single: Director) -> None:
    error = await outcome(single.run(raise_chained))
    assert type(error) is ValueError
    assert isinstance(error.__cause__, LookupError)
    assert "in raise_chained" in "".join(traceback.format_exception(error))


# ---- loads


async def test_a_load_that_takes_longer_than_start_within_goes_on(solo: Any, tmp_path: Path) -> None:
    go, begun, called = (tmp_path / name for name in ("go", "begun", "called"))
    model, clock = Model(LoadWhen(go, begun=begun)), TestClock()
    async with Director(executor=solo, clock=clock) as one:
        job = one.submit(trace, str(called), model=model, start_within=5, timeout=1)
        await later(begun.exists, SLOW / 2)
        clock.advance(5)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option, job.ran) == ("queued", "start_within", None)
        clock.advance(100)  # its timeout does not end the actor
        go.touch()
        await rested(one)
        assert one.stats().devices[0].models == (model.name,)
        assert not called.exists()
        before = await one.run(work.use, model=model, start_within=5)
        assert await one.run(work.use, model=model) == (before[0], before[1] + 1), "the actor and its replica stay"


async def test_every_kind_of_call_with_start_within(single: Director) -> None:
    model = Model(work.load)
    assert await single.run(work.echo, 1, start_within=SLOW) == 1
    assert (await single.run(work.use, model=model, start_within=SLOW))[1] == 1
    assert [value async for value in single.stream(work.count_up, 3, start_within=SLOW)] == [0, 1, 2]
    assert await single.function(work.double_all, max_batch_size=2, start_within=SLOW)(2) == 4
    error = await outcome(single.run(work.use, model=Model(work.load_in_vain), start_within=SLOW))
    assert isinstance(error, FileNotFoundError)


async def test_jobs_go_where_the_model_can_be_loaded(executor: Any, tmp_path: Path) -> None:
    recorder, model = Recorder(), Model(LoadFrom(tmp_path / "broken"))
    async with Director(executor=executor, hooks=[recorder]) as four:
        jobs = [four.submit(work.use, model=model) for _ in range(12)]
        assert len(await asyncio.gather(*jobs)) == 12
        assert four.stats().failed == 0
        assert all(job.attempts == 1 for job in jobs)
    assert [event.device.uuid for event in recorder.of(ModelFailed)] == [(tmp_path / "broken").read_text()]


# ---- memory


async def test_a_model_makes_room_for_another(solo: Any) -> None:
    recorder = Recorder()
    first, second = (Model(work.load, memory=60, name=name) for name in ("first", "second"))
    async with Director(executor=solo, memory_limit=100, hooks=[recorder]) as one:
        await one.run(work.use, model=first)
        assert one.stats().devices[0].models == ("first",)
        assert (await one.run(work.use, model=second))[1] == 1
        assert one.stats().devices[0].models == ("second",)
        await one.unload(second)
        assert one.stats().devices[0].models == ()
        assert (await one.run(work.use, model=second))[1] == 1, "it was loaded again"
    assert [event.model for event in recorder.of(ModelLoaded)] == ["first", "second", "second"]
    assert [event.model for event in recorder.of(ModelUnloaded)] == ["first", "second", "second"]


async def test_an_unload_runs_in_the_actor(solo: Any, tmp_path: Path) -> None:
    model = Model(work.load, unload=partial(trace_unload, str(tmp_path / "unloaded")))
    async with Director(executor=solo) as one:
        await one.run(work.use, model=model)
        await one.unload(model)
        assert (tmp_path / "unloaded").exists()


def trace_unload(path: str, _replica: Any) -> None:
    Path(path).touch()


# ---- closing


async def test_a_running_call_is_told_of_the_close(solo: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Director(executor=solo)
    await one.start()
    running = one.submit(work.cooperative, str(tmp_path / "end"))
    await until(lambda: running.progress)
    waiting = one.submit(work.echo, 1)
    async with asyncio.timeout(SLOW / 2):
        await one.close(0, grace=SLOW)
    assert [type(job.exception()) for job in (running, waiting)] == [JobAborted, DirectorClosed]
    assert (tmp_path / "end").read_text() == "CancelledError"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_call_that_does_not_end_is_ended_with_its_actor(executor: Any, tmp_path: Path) -> None:
    one = Director(executor=replace(executor, resources={"solo": 1}, grace=0.1))
    await one.start()
    job = one.submit(work.stay, str(tmp_path / "process"))
    await later((tmp_path / "process").exists, SLOW / 2)
    async with asyncio.timeout(SLOW / 2):
        await one.close(0, grace=0.05)
    assert isinstance(await outcome(job), JobAborted)
    process = (tmp_path / "process").read_text()
    await later(lambda: not Path(f"/proc/{process}").exists())
