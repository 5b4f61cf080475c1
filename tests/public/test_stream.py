"""`stream`: the values of a generator that runs on a slot, as they come."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import traceback
import weakref
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, collected, rested, turns, until

from director import (
    Device,
    Director,
    DirectorClosed,
    JobState,
    Model,
    PlacementError,
    current_device,
    current_job,
    report,
)
from director.events import JobCancelled, JobProgressed, JobStarted, JobSucceeded
from public.streams import Boom, Source, count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


# ---- values


@pytest.mark.every_loop
@pytest.mark.parametrize("buffer", [1, 2, 16, 1000])
async def test_every_value_once_and_in_order(buffer: int) -> None:
    async with Director("simulated:2") as director:
        streams = [collected(director.stream(count, 500, buffer=buffer)) for _ in range(3)]
        assert await asyncio.gather(*streams) == [(list(range(500)), None)] * 3


async def test_each_value_comes_as_soon_as_it_is_made(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[Any]:
        for number in range(3):
            yield gate(device, number)

    async with Director("simulated:1") as director, aclosing(director.stream(generate)) as values:
        for number in range(3):
            gate.let(1)
            assert await anext(values) == number
            await gate.begun()
        assert gate.finished == 3


async def test_no_values() -> None:
    async with Director("simulated:1") as director:
        assert await collected(director.stream(count, 0)) == ([], None)


async def test_what_it_returns_is_dropped() -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        return "dropped"

    async with Director("simulated:1") as director:
        assert await collected(director.stream(generate)) == ([1], None)


async def test_falsy_values_are_values() -> None:
    async with Director("simulated:1") as director:
        assert await collected(director.stream(Source([None, 0, "", False]))) == ([None, 0, "", False], None)


async def test_exceptions_are_values_too() -> None:
    error = Boom()
    async with Director("simulated:1") as director:
        assert await collected(director.stream(Source([error, StopIteration]))) == ([error, StopIteration], None)


async def test_what_it_raises_comes_unwrapped_after_the_values_before_it() -> None:
    error = Boom("after two")

    def generate(_device: Device) -> Iterator[int]:
        yield 1
        yield 2
        raise error

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        await anext(values)
        await rested(director)  # all is there before anything more is read
        seen, raised = await collected(values)
        assert seen == [2]
        assert raised is error
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert (last.name, last.line) == ("generate", "raise error")
        names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        assert not any(name.endswith(("stream_call.py", "_thread.py", "shift.py")) for name in names)
        assert director.stats().failed == 1


async def test_an_error_before_the_first_value() -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1 // 0

    async with Director("simulated:1") as director:
        with pytest.raises(ZeroDivisionError):
            await anext(director.stream(generate))


async def test_a_generator_that_raises_cancelled_error_ends_as_cancelled() -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        raise asyncio.CancelledError

    async with Director("simulated:1") as director:
        seen, error = await collected(director.stream(generate))
        assert seen == [1]
        assert isinstance(error, asyncio.CancelledError)
        assert director.stats().cancelled == 1


async def test_values_are_kept_by_nobody_once_they_are_read() -> None:
    class Value:
        pass

    def generate(_device: Device) -> Iterator[Value]:
        for _ in range(3):
            value = Value()
            watched.append(weakref.ref(value))
            yield value
            del value
            assert go_on.acquire(timeout=PATIENCE)

    watched: list[weakref.ref[Value]] = []
    go_on = threading.Semaphore(0)
    async with Director("simulated:1") as director:
        async for value in director.stream(generate):
            del value
            await until(lambda: watched[-1]() is None)
            go_on.release()
        assert len(watched) == 3


# ---- where it runs


async def test_it_gets_its_resource_and_arguments() -> None:
    def generate(replica: str, *args: Any, sep: str = "-") -> Iterator[str]:
        for arg in args:
            yield f"{replica}{sep}{arg}"

    model = Model(lambda device: f"model on {device.label}")
    async with Director("simulated:2") as director:
        values = director.stream(functools.partial(generate, sep="/"), 1, "b", model=model, devices=[1])
        assert await collected(values) == (["model on simulated:1/1", "model on simulated:1/b"], None)


class Speaker:
    def speak(self, _device: Device, word: str) -> Iterator[str]:
        yield from word

    @classmethod
    def shout(cls, _device: Device, word: str) -> Iterator[str]:
        yield from word.upper()

    def __call__(self, _device: Device, word: str) -> Iterator[str]:
        yield word


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (Speaker().speak, ["h", "i"]),
        (Speaker.shout, ["H", "I"]),
        (Speaker(), ["hi"]),
        (functools.partial(functools.partial(Speaker().speak)), ["h", "i"]),
        (lambda _device, word: (yield word), ["hi"]),
    ],
    ids=["method", "classmethod", "object", "partial", "lambda"],
)
async def test_every_kind_of_generator_function(fn: Any, values: list[str]) -> None:
    async with Director("simulated:1") as director:
        assert await collected(director.stream(fn, "hi")) == (values, None)


async def test_inside_it_is_a_job(recorder: Recorder) -> None:
    def generate(device: Device) -> Iterator[Any]:
        assert current_device() is device
        report("half")
        yield current_job()
        yield current_job().progress

    async with Director("simulated:1", hooks=[recorder]) as director:
        job, progress = [value async for value in director.stream(generate, name="talk", priority=3)]
        assert (job.name, job.priority, job.state, progress) == ("talk", 3, JobState.SUCCEEDED, "half")
        assert director.stats().succeeded == 1
    assert [type(event) for event in recorder.of(JobStarted, JobProgressed, JobSucceeded)] == [
        JobStarted,
        JobProgressed,
        JobSucceeded,
    ]


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (Speaker().speak, "speak"),
        (functools.partial(Speaker.shout), "shout"),
        (Speaker(), "Speaker"),
    ],
)
async def test_its_job_is_called_what_the_function_is(fn: Any, name: str, recorder: Recorder) -> None:
    async with Director("simulated:1", hooks=[recorder]) as director:
        await collected(director.stream(fn, ""))
    assert [started.name for started in recorder.of(JobStarted)] == [name]


async def test_it_runs_in_the_context_of_its_call() -> None:
    word = contextvars.ContextVar("word", default="none")

    def generate(_device: Device) -> Iterator[str]:
        yield word.get()
        word.set("its own")
        yield word.get()

    async with Director("simulated:1") as director:
        word.set("mine")
        values = director.stream(generate)
        word.set("another")
        assert await collected(values) == (["mine", "its own"], None)
        assert word.get() == "another"


async def test_streams_wait_their_turn_by_priority(gate: Gate) -> None:
    def generate(_device: Device, name: str) -> Iterator[str]:
        order.append(name)
        yield name

    order: list[str] = []
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        names = [("low", 0), ("high", 2), ("middle", 1)]
        streams = [director.stream(generate, name, priority=priority) for name, priority in names]
        assert director.stats().queued == 3
        gate.open()
        await asyncio.gather(*map(collected, streams))
    assert order == ["high", "middle", "low"]


# ---- what is refused


def plain(_device: Device) -> list[int]:
    return [1]


async def asynchronous(_device: Device) -> AsyncIterator[int]:
    yield 1


async def coroutine(_device: Device) -> None: ...


@pytest.mark.parametrize("fn", [plain, asynchronous, coroutine, Speaker, len, 5, None, functools.partial(plain)])
async def test_what_is_no_generator_function_is_refused_at_once(fn: Any) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="generator function"):
            director.stream(fn)
        assert director.stats().queued == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"buffer": 0}, ValueError),
        ({"buffer": -1}, ValueError),
        ({"buffer": 1.5}, TypeError),
        ({"buffer": True}, TypeError),
        ({"buffer": None}, TypeError),
        ({"on_slow_reader": "drop"}, ValueError),
        ({"on_slow_reader": None}, ValueError),
        ({"slow_reader_timeout": 0}, ValueError),
        ({"slow_reader_timeout": -1}, ValueError),
        ({"slow_reader_timeout": float("nan")}, ValueError),
        ({"slow_reader_timeout": None}, TypeError),
        ({"slow_reader_timeout": True}, TypeError),
        ({"slow_reader_timeout": "1"}, TypeError),
        ({"deadline": 0}, ValueError),
        ({"size": 3}, TypeError),
        ({"devices": []}, PlacementError),
    ],
)
async def test_a_wrong_option_is_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(error, match=next(iter(options)).split("_", maxsplit=1)[0]):
            director.stream(count, 1, **options)


async def test_a_director_that_is_not_open_refuses_it_at_once() -> None:
    director = Director("simulated:1")
    with pytest.raises(DirectorClosed):
        director.stream(count, 1)
    async with director:
        draining = asyncio.create_task(director.drain())
        await turns()
        with pytest.raises(DirectorClosed):
            director.stream(count, 1)
        await draining
    with pytest.raises(DirectorClosed):
        director.stream(count, 1)


# ---- of a function


async def test_a_function_streams_with_its_options(recorder: Recorder) -> None:
    director = Director("simulated:2", hooks=[recorder])

    @director.function(devices=[1], name="tokens")
    def generate(device: Device, word: str) -> Iterator[str]:
        for letter in word:
            yield f"{letter}{device.index}"

    async with director:
        assert await collected(generate.stream("ab", buffer=1)) == (["a1", "b1"], None)
        with pytest.raises(ValueError, match="on_slow_reader"):
            generate.stream("ab", on_slow_reader="never")  # type: ignore[arg-type]
    assert recorder.of(JobStarted)[0].name == "tokens"
    assert recorder.of(JobCancelled) == []


async def test_a_function_of_batches_does_not_stream() -> None:
    director = Director("simulated:1")

    @director.function(max_batch_size=4)
    def generate(_device: Device, items: list[int]) -> Iterator[int]:
        yield from items

    async with director:
        with pytest.raises(TypeError, match="generate takes batches"):
            generate.stream(1)  # type: ignore[misc]
