"""`stream`: the values of a generator that runs on a slot, as they come."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import logging
import threading
import traceback
import weakref
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from director import (
    Device,
    Director,
    DirectorClosed,
    JobError,
    JobState,
    JobTimeout,
    Model,
    PlacementError,
    SlowReader,
    check_cancelled,
    current_device,
    current_job,
    report,
)
from director.events import JobCancelled, JobFailed, JobProgressed, JobRetried, JobStarted, JobSucceeded
from public.gates import PATIENCE, Gate, Recorder, collected, rested, turns, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from director import Job
    from director.testing import TestClock


class Boom(Exception):
    pass


def count(_device: Device, stop: int) -> Iterator[int]:
    yield from range(stop)


def endless(_device: Device) -> Iterator[int]:
    yield from itertools.count()


class Source:
    """A generator function that remembers how far it came, and where and how it ended."""

    def __init__(self, values: Any = None) -> None:
        self.values = itertools.count() if values is None else values
        self.made = 0
        self.thread = ""
        self.job: Job[Any] | None = None
        self.ended = threading.Event()
        self.ending: BaseException | None = None

    def __call__(self, _resource: Any) -> Iterator[Any]:
        self.job = current_job()
        try:
            for value in self.values:
                self.made += 1
                yield value
        except BaseException as error:
            self.ending = error
            raise
        finally:
            self.thread = threading.current_thread().name
            self.ended.set()

    async def is_over(self) -> None:
        await until(self.ended.is_set)


async def stalled(director: Director, source: Source) -> None:
    """Wait until the generator waits for its reader, and the loop knows if that is timed; nothing public tells it."""

    def waits() -> bool:
        assert director._crew is not None
        bridges = [call.bridge for _, call in director._crew._streams()]
        return all(bridge._is_blocked and bridge._is_timed == (bridge._timer is not None) for bridge in bridges)

    await until(lambda: source.made and (source.ended.is_set() or waits()))


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


async def test_it_runs_in_the_context_of_its_first_step() -> None:
    word = contextvars.ContextVar("word", default="none")

    def generate(_device: Device) -> Iterator[str]:
        yield word.get()
        word.set("its own")
        yield word.get()

    async with Director("simulated:1") as director:
        word.set("mine")
        assert await collected(director.stream(generate)) == (["mine", "its own"], None)
        assert word.get() == "mine"


async def test_streams_wait_their_turn_by_priority(gate: Gate) -> None:
    def generate(_device: Device, name: str) -> Iterator[str]:
        order.append(name)
        yield name

    order: list[str] = []
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        readers = []
        for name, priority in [("low", 0), ("high", 2), ("middle", 1)]:
            readers.append(asyncio.create_task(collected(director.stream(generate, name, priority=priority))))
            await turns()
        assert director.stats().queued == 3
        gate.open()
        await asyncio.gather(*readers)
    assert order == ["high", "middle", "low"]


async def test_it_is_never_refused_for_a_full_queue(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=0) as director:
        director.submit(gate)
        await gate.begun()
        reader = asyncio.create_task(collected(director.stream(count, 2)))
        await turns()
        gate.open()
        assert await reader == ([0, 1], None)


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


async def test_a_director_that_is_not_open_refuses_it() -> None:
    director = Director("simulated:1")
    with pytest.raises(DirectorClosed):
        director.stream(count, 1)
    async with director:
        values = director.stream(count, 1)
    with pytest.raises(DirectorClosed):
        await anext(values)


async def test_one_that_is_never_stepped_does_nothing() -> None:
    source = Source()
    async with Director("simulated:1") as director:
        values = director.stream(source)
        await turns()
        assert director.stats().queued + director.stats().running == 0
        await values.aclose()
        del values
        director.stream(source)
    assert source.made == 0


# ---- a reader that leaves


async def by_break(values: Any) -> None:
    async for _ in values:
        break


async def by_aclose(values: Any) -> None:
    await anext(values)
    await values.aclose()


async def by_error(values: Any) -> None:
    with suppress(Boom):
        async with aclosing(values):
            async for _ in values:
                raise Boom


async def by_garbage(values: Any) -> None:
    await anext(values)


async def by_cyclic_garbage(values: Any) -> None:
    await anext(values)
    holder = [values]
    holder.append(holder)
    del values, holder
    gc.collect()


async def by_cancellation(values: Any) -> None:
    async def read() -> None:
        async for _ in values:
            pass

    reader = asyncio.create_task(read())
    await turns()
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize(
    "leave", [by_break, by_aclose, by_error, by_garbage, by_cyclic_garbage, by_cancellation], ids=lambda fn: fn.__name__
)
async def test_a_reader_that_leaves_closes_the_generator_on_its_thread_and_frees_the_slot(leave: Any) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        await leave(director.stream(source))
        await source.is_over()
        assert isinstance(source.ending, GeneratorExit)
        assert source.thread == "director:simulated:0/0"
        assert await director.run(lambda device: device.index) == 0
        await rested(director)
        assert source.job is not None
        assert source.job.state is JobState.CANCELLED
        assert director.stats().cancelled == 1


async def test_cancelled_while_it_waits_for_a_slot_it_never_runs(gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        reader = asyncio.create_task(collected(director.stream(source)))
        await turns()
        assert director.stats().queued == 1
        reader.cancel()
        await asyncio.wait([reader])
        assert director.stats().queued == 0
        gate.open()
    assert source.made == 0


async def test_a_reader_is_not_kept_waiting_by_what_the_generator_does(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    async with Director("simulated:1") as director:
        values = director.stream(generate)
        assert await anext(values) == 1
        await gate.begun()
        async with asyncio.timeout(PATIENCE / 2):
            await values.aclose()
        assert director.stats().devices[0].busy == 1  # the call goes on to its next `yield`
        gate.open()
        await rested(director)


async def test_between_two_values_it_can_ask_whether_anybody_reads() -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        try:
            while True:
                check_cancelled()
                nap.wait(0.001)
        except asyncio.CancelledError:
            seen.set()
            raise

    nap, seen = threading.Event(), threading.Event()
    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            await anext(values)
        await until(seen.is_set)


async def test_a_stream_that_always_has_a_value_does_not_hold_the_loop() -> None:
    """A reader that never has to wait would otherwise never let anybody else run, also not who cancels it."""
    source = Source(range(1000))
    async with Director("simulated:1") as director:
        values = director.stream(source, buffer=1000)
        assert await anext(values) == 0
        await until(lambda: source.made == 1000)
        reader = asyncio.create_task(collected(values))
        await turns(3)
        reader.cancel()
        seen, error = await reader
        assert 0 < len(seen) < 1000
        assert seen == list(range(1, 1 + len(seen)))
        assert isinstance(error, asyncio.CancelledError)


async def test_a_reader_that_leaves_lets_go_of_the_values_that_wait(gate: Gate) -> None:
    class Value:
        pass

    def generate(device: Device) -> Iterator[Value]:
        yield Value()
        value = Value()
        watched.append(weakref.ref(value))
        yield value
        del value
        gate(device)

    watched: list[weakref.ref[Value]] = []
    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            await anext(values)
            await gate.begun()
            assert watched[0]() is not None
        assert watched[0]() is None  # though the call goes on
        gate.open()


async def test_no_error_is_reported_that_nobody_asked_for(loop_errors: list[dict[str, Any]]) -> None:
    def generate(_device: Device) -> Iterator[int]:
        yield 1
        raise Boom

    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            await anext(values)
            await until(lambda: director.stats().failed == 1)
        del values
        gc.collect()
    assert loop_errors == []


@pytest.mark.usefixtures("no_gc")
async def test_nothing_of_a_stream_is_left_for_the_collector() -> None:
    class Big:
        pass

    def generate(_device: Device, big: Big) -> Iterator[Big]:
        yield big
        raise Boom

    async with Director("simulated:1") as director:
        big = Big()
        watched = weakref.ref(big)
        await collected(director.stream(generate, big))
        await rested(director)
        await turns()
        del big
        assert watched() is None


# ---- generators that don't end when they are told to


async def test_one_that_yields_in_finally_is_closed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            try:
                yield -1
                steps.append("never: it was closed at this yield")
            finally:
                yield -2
                steps.append("and at this one")

    steps: list[str] = []
    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            assert await anext(values) == 0
        await rested(director)
        assert await director.run(lambda device: device.index) == 0
    assert steps == []
    (record,) = [record for record in caplog.records if record.name == "director"]
    assert "generate yields while it is closed" in record.getMessage()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the interpreter complains too
async def test_one_that_never_ends_gives_its_slot_back(caplog: pytest.LogCaptureFixture) -> None:
    def generate(_device: Device) -> Iterator[int]:
        for number in itertools.count():
            with suppress(GeneratorExit):
                yield number

    async with Director("simulated:1") as director:
        kept = director.stream(generate)
        await anext(kept)
        await kept.aclose()
        await rested(director)
        assert await director.run(lambda device: device.index) == 0
    assert len([record for record in caplog.records if record.name == "director"]) == 1


async def test_what_it_raises_while_it_is_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise Boom("in finally")

    async with Director("simulated:1") as director:
        async with aclosing(director.stream(generate)) as values:
            assert await anext(values) == 0
        await rested(director)
    (record,) = [record for record in caplog.records if record.name == "director"]
    assert "generate raised while it was closed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Boom)


async def move(clock: TestClock) -> None:
    await turns()
    clock.advance(5)


@pytest.mark.parametrize(
    ("end", "error"),
    [(lambda values, clock: values.aclose(), asyncio.CancelledError), (lambda values, clock: move(clock), JobTimeout)],
    ids=["left", "timeout"],
)
async def test_one_that_asks_in_finally_whether_it_is_cancelled_is_closed_silently(
    end: Any, error: type[BaseException], clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            with pytest.raises(error):
                check_cancelled()
            asked.set()
            check_cancelled()

    asked = threading.Event()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, timeout=5)
        assert await anext(values) == 0
        await end(values, clock)
        await until(asked.is_set)
        await rested(director)
    assert caplog.records == []


# ---- slow readers


async def test_the_generator_is_never_further_ahead_than_the_buffer() -> None:
    source = Source()
    async with Director("simulated:1") as director, aclosing(director.stream(source, buffer=3)) as values:
        for number in range(10):
            assert await anext(values) == number
            await until(lambda number=number: source.made == number + 1 + 3 + 1)  # one more is made, and waits
            await turns()
            assert source.made == number + 5
    assert source.ended.is_set()


async def test_by_default_it_waits_for_its_reader_however_long(clock: TestClock) -> None:
    source = Source(range(10))
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=2)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(1_000_000)
        assert await collected(values) == (list(range(1, 10)), None)


async def test_a_reader_that_is_too_slow_is_cut_after_the_values_that_wait(
    clock: TestClock, recorder: Recorder
) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock, hooks=[recorder]) as director:
        values = director.stream(source, buffer=2, on_slow_reader="cancel", slow_reader_timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(4.9)
        await turns()
        assert not source.ended.is_set()
        clock.advance(0.1)
        await source.is_over()  # though nobody reads
        assert isinstance(source.ending, GeneratorExit)
        assert source.thread == "director:simulated:0/0"
        assert await director.run(lambda device: device.index) == 0
        seen, error = await collected(values)
        assert seen == [1, 2]
        assert isinstance(error, SlowReader)
        assert (error.seconds, error.buffer) == (5, 2)
        assert "slow_reader_timeout" in str(error)
        assert (director.stats().failed, director.stats().cancelled) == (1, 0)
    (failed,) = recorder.of(JobFailed)
    assert failed.error is error


async def test_a_reader_that_takes_one_value_in_time_is_not_cut(clock: TestClock) -> None:
    source = Source(range(20))
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=1, on_slow_reader="cancel", slow_reader_timeout=5)
        for number in range(18):
            assert await anext(values) == number
            await stalled(director, source)
            clock.advance(4.9)
        assert await collected(values) == ([18, 19], None)


async def test_a_generator_that_is_slow_itself_cuts_nobody(clock: TestClock, gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, buffer=1, on_slow_reader="cancel", slow_reader_timeout=5)
        assert await anext(values) == 1
        await gate.begun()
        clock.advance(1000)
        gate.open()
        assert await collected(values) == ([2], None)


async def test_a_stream_is_cut_also_if_its_generator_fails_to_clean_up(
    clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    def generate(_device: Device) -> Iterator[int]:
        try:
            yield from source(_device)
        finally:
            raise Boom

    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, buffer=1, on_slow_reader="cancel", slow_reader_timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(5)
        seen, error = await collected(values)
        assert seen == [1]
        assert isinstance(error, SlowReader)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# ---- time limits


async def test_time_is_up_while_it_runs(clock: TestClock, gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        yield 2
        gate(device)
        yield 3

    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, timeout=5)
        assert await anext(values) == 1
        await gate.begun()
        await turns()
        clock.advance(5)
        seen, error = await collected(values)
        assert seen == [2]
        assert isinstance(error, JobTimeout)
        assert error.phase == "running"
        gate.open()
        await rested(director)


async def test_time_is_up_while_it_waits_for_its_reader(clock: TestClock) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, buffer=2, timeout=5)
        assert await anext(values) == 0
        await stalled(director, source)
        clock.advance(5)
        await source.is_over()
        assert isinstance(source.ending, GeneratorExit)
        assert await director.run(lambda device: device.index) == 0
        seen, error = await collected(values)
        assert seen == [1, 2]
        assert isinstance(error, JobTimeout)


async def test_a_deadline_that_passes_in_the_queue(clock: TestClock, gate: Gate) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        values = director.stream(source, deadline=5)
        clock.advance(3)  # before the first step: the deadline counts from there
        reader = asyncio.create_task(collected(values))
        await turns()
        clock.advance(4.9)
        await turns()
        assert not reader.done()
        clock.advance(0.1)
        seen, error = await reader
        assert seen == []
        assert isinstance(error, JobTimeout)
        assert error.phase == "queued"
        gate.open()
    assert source.made == 0


# ---- the end of the Director


async def test_draining_waits_for_a_reader_that_reads(gate: Gate) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield from range(100)
        gate(device)
        yield 100

    async with Director("simulated:1") as director:
        reader = asyncio.create_task(collected(director.stream(generate, buffer=1)))
        await gate.begun()
        draining = asyncio.create_task(director.drain())
        await turns()
        assert not draining.done()
        gate.open()
        assert await reader == (list(range(101)), None)
        await draining


@pytest.mark.parametrize("full_before", [True, False])
async def test_draining_waits_for_a_reader_that_does_not_read_until_its_limit(
    clock: TestClock, gate: Gate, full_before: bool
) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 0
        gate(device)
        yield from source(device)

    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(generate, buffer=1, slow_reader_timeout=5)
        assert await anext(values) == 0
        if full_before:
            gate.open()
            await stalled(director, source)
            clock.advance(100)  # it may wait as long as the Director is open
        draining = asyncio.create_task(director.drain())
        await turns()
        gate.open()
        await stalled(director, source)
        clock.advance(4.9)
        await turns()
        assert not draining.done()
        clock.advance(0.1)
        await draining
        assert isinstance(source.ending, GeneratorExit)
        seen, error = await collected(values)
        assert seen == [0]
        assert isinstance(error, SlowReader)


async def test_closing_from_the_task_that_reads_does_not_hang() -> None:
    source = Source()
    async with Director("simulated:1") as director:
        values = director.stream(source, slow_reader_timeout=0.01)
        assert await anext(values) == 0
    assert isinstance(source.ending, GeneratorExit)
    await values.aclose()


@pytest.mark.parametrize("in_haste", [lambda director: director.close(0), None], ids=["close", "exception"])
async def test_closing_in_haste_cancels_streams_at_once(in_haste: Any, caplog: pytest.LogCaptureFixture) -> None:
    waits, reads = Source(), Source()
    began = asyncio.get_running_loop().time()
    with suppress(Boom):
        async with Director("simulated:2") as director:
            values = director.stream(waits, buffer=2)
            assert await anext(values) == 0
            reader = asyncio.create_task(collected(director.stream(reads)))
            await until(lambda: reads.made > 100)
            if in_haste is None:
                raise Boom
            await in_haste(director)
    assert asyncio.get_running_loop().time() - began < 0.9  # not the grace of those that can't be told to end
    assert isinstance(waits.ending, GeneratorExit)
    assert isinstance(reads.ending, GeneratorExit)
    for seen, error in [await collected(values), await reader]:
        assert isinstance(error, asyncio.CancelledError)
        assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert caplog.records == []


async def test_closing_in_haste_leaves_one_behind_that_does_not_come_to_a_value(
    gate: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(device: Device) -> Iterator[int]:
        yield 1
        gate(device)
        yield 2

    monkeypatch.setattr("director._core.crew._GRACE", 0.01)
    director = Director("simulated:1")
    await director.start()
    values = director.stream(generate)
    assert await anext(values) == 1
    await gate.begun()
    await director.close(0)
    assert isinstance((await collected(values))[1], asyncio.CancelledError)
    gate.open()
    await until(lambda: gate.finished == 1)


LEAVING = """
import asyncio, threading
from director import Director

ended = threading.Event()

def generate(device):
    try:
        while True:
            yield 1
    finally:
        ended.set()

async def main():
    global values
    director = Director("simulated:1")
    await director.start()
    values = director.stream(generate, buffer=2)
    await anext(values)
    {leave}

{run}
del values
assert ended.wait(5)
print("ended")
"""


@pytest.mark.parametrize(
    ("leave", "run"),
    [
        ("", "asyncio.run(main())"),
        ("raise SystemExit", "try: asyncio.run(main())\nexcept SystemExit: pass"),
        ("", "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\nloop.close()"),
    ],
    ids=["run", "exit", "closed loop"],
)
def test_a_loop_that_ends_leaves_no_generator_waiting(python: Callable[[str], str], leave: str, run: str) -> None:
    assert "ended" in python(LEAVING.format(leave=leave, run=run))


async def test_streams_end_with_a_director_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    director = Director("simulated:1")
    await director.start()
    values = director.stream(source, buffer=1)
    assert await anext(values) == 0
    await until(lambda: source.made == 3)
    assert director._crew is not None
    director._crew.fail(Boom("inside"))
    await source.is_over()
    seen, error = await collected(values)
    assert seen == [1]
    assert isinstance(error, JobError)
    await director.close()


# ---- many at once


async def test_generators_do_not_wait_for_the_loop_while_there_is_room() -> None:
    """Four generators take turns with each other, value by value, while the loop is blocked altogether."""

    def generate(_device: Device, number: int) -> Iterator[tuple[int, int]]:
        go.wait(PATIENCE)
        for turn in range(16):
            together.wait(PATIENCE)
            yield number, turn
        if together.wait(PATIENCE) == 0:
            done.set()

    together, go, done = threading.Barrier(4), threading.Event(), threading.Event()
    async with Director("simulated:2", slots=2) as director:
        readers = [asyncio.create_task(collected(director.stream(generate, n))) for n in range(4)]
        await until(lambda: director.stats().running == 4)
        go.set()
        assert done.wait(PATIENCE)  # blocks the loop
        assert not any(reader.done() for reader in readers)
        for number, (seen, error) in enumerate(await asyncio.gather(*readers)):
            assert seen == [(number, turn) for turn in range(16)]
            assert error is None


async def test_more_streams_than_slots_take_their_turns() -> None:
    async with Director("simulated:2") as director:
        results = await asyncio.gather(*[collected(director.stream(count, 50, buffer=3)) for _ in range(20)])
        assert results == [(list(range(50)), None)] * 20
        assert director.stats().succeeded == 20


async def test_streams_and_jobs_share_the_slots() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(lambda device: "job")
        stream = asyncio.create_task(collected(director.stream(count, 3)))
        assert await job == "job"
        assert await stream == ([0, 1, 2], None)


# ---- second tries


@pytest.mark.parametrize(("values", "tries"), [(0, 3), (1, 1)], ids=["before the first value", "after it"])
async def test_it_is_tried_again_only_before_its_first_value(values: int, tries: int, recorder: Recorder) -> None:
    def generate(_device: Device) -> Iterator[int]:
        made.append(current_job().attempts)
        yield from range(values)
        if len(made) < 3:
            raise Boom(len(made))
        yield 99

    made: list[int] = []
    async with Director("simulated:2", hooks=[recorder]) as director:
        seen, error = await collected(director.stream(generate, retries=5, retry_on=Boom))
    assert made == list(range(1, tries + 1))
    assert len(recorder.of(JobRetried)) == tries - 1
    assert seen == ([99] if error is None else [0])
    assert (error is None) is (tries == 3)


async def test_a_reader_can_leave_between_two_tries(clock: TestClock) -> None:
    def generate(_device: Device) -> Iterator[int]:
        made.append(1)
        raise Boom
        yield

    made: list[int] = []
    async with Director("simulated:1", clock=clock) as director:
        reader = asyncio.create_task(collected(director.stream(generate, retries=5, retry_on=Boom, backoff=10)))
        await until(lambda: director.stats().queued == 1)
        reader.cancel()
        _, error = await reader
        assert isinstance(error, asyncio.CancelledError)
        clock.advance(100)
        await turns()
        assert len(made) == 1


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
