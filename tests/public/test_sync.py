"""`SyncDirector`: the same Director for programs without an event loop, from any of their threads."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from director import (
    Device,
    DirectorClosed,
    DirectorState,
    JobAborted,
    JobTimeout,
    Model,
    NoDevices,
    QueueFull,
    SyncDirector,
    check_cancelled,
    current_job,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20.0


def double(_device: Any, number: int) -> int:
    return 2 * number


def count(_device: Any, end: int) -> Iterator[int]:
    yield from range(end)


class Hold:
    """A function that begins and waits until it is let go."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, _device: Any, value: Any = None) -> Any:
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE)
        return value


@pytest.fixture
def director() -> Iterator[SyncDirector]:
    with SyncDirector("cpu:2") as director:
        yield director


def loops() -> int:
    return sum(thread.name == "director:loop" for thread in threading.enumerate())


def test_run_returns_the_result(director: SyncDirector) -> None:
    assert director.run(double, 21) == 42
    assert director.run(lambda device: isinstance(device, Device)) is True


def test_run_raises_what_the_function_raises(director: SyncDirector) -> None:
    error = KeyError("its own")

    def fail(_device: Any) -> None:
        raise error

    with pytest.raises(KeyError) as raised:
        director.run(fail)
    assert raised.value is error


def test_options_are_those_of_the_director(director: SyncDirector) -> None:
    assert director.run(lambda _: current_job().priority, priority=7) == 7
    with pytest.raises(TypeError, match="prioritty"):
        director.run(double, 1, prioritty=7)  # type: ignore[call-arg]


def test_the_call_has_the_callers_context(director: SyncDirector) -> None:
    user: ContextVar[str] = ContextVar("user")
    user.set("alice")
    assert director.run(lambda _: user.get()) == "alice"
    assert director.submit(lambda _: user.get()).result(PATIENCE) == "alice"


def test_threads_call_it_at_once(director: SyncDirector) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: director.run(double, n), range(200))) == [2 * n for n in range(200)]
    assert director.stats().succeeded == 200


def test_submit_gives_a_future(director: SyncDirector) -> None:
    future = director.submit(double, 4)
    assert isinstance(future, Future)
    assert future.result(PATIENCE) == 8
    failed = director.submit(lambda _: 1 / 0)
    assert isinstance(failed.exception(PATIENCE), ZeroDivisionError)


def test_submit_refuses_at_once() -> None:
    hold = Hold()
    with SyncDirector("cpu", max_queue=1) as director:
        running = director.submit(hold)
        assert hold.has_begun.wait(PATIENCE)
        waiting = director.submit(double, 1)
        with pytest.raises(QueueFull):
            director.submit(double, 2)
        hold.may_end.set()
        assert (running.result(PATIENCE), waiting.result(PATIENCE)) == (None, 2)


def test_cancelling_the_future_cancels_the_job(director: SyncDirector) -> None:
    has_begun, stopped = threading.Event(), threading.Event()

    def work(_device: Any) -> None:
        has_begun.set()
        try:
            while True:
                check_cancelled()
        finally:
            stopped.set()

    future = director.submit(work)
    assert has_begun.wait(PATIENCE)
    assert future.cancel()
    assert stopped.wait(PATIENCE)
    with pytest.raises(CancelledError):
        future.result(PATIENCE)


@pytest.mark.parametrize("ordered", [True, False])
def test_map_takes_items_as_there_is_room(director: SyncDirector, ordered: bool) -> None:
    taken = []

    def items() -> Iterator[int]:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    results = director.map(double, items(), window=4, ordered=ordered)
    first = [next(results) for _ in range(10)]
    results.close()  # type: ignore[attr-defined]
    assert sorted(first) == [2 * n for n in range(10)] if ordered else len(set(first)) == 10
    assert len(taken) <= 14


def test_map_raises_the_first_error_or_yields_it(director: SyncDirector) -> None:
    def invert(_device: Any, number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        list(director.map(invert, [1, 0, 2]))
    one, error, half = director.map(invert, [1, 0, 2], return_exceptions=True)
    assert (one, half) == (1.0, 0.5)
    assert isinstance(error, ZeroDivisionError)


def test_an_error_of_the_items_ends_the_map(director: SyncDirector) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the file is gone")

    results = director.map(double, items(), window=1)
    assert next(results) == 2
    with pytest.raises(OSError, match="gone"):
        next(results)


@pytest.mark.parametrize("window", [0, -1, "many"])
def test_a_window_is_a_number(director: SyncDirector, window: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="window"):
        director.map(double, [1], window=window)


def test_stream_yields_the_values(director: SyncDirector) -> None:
    assert list(director.stream(count, 100)) == list(range(100))


def test_leaving_a_stream_closes_its_generator(director: SyncDirector) -> None:
    closed = threading.Event()

    def forever(_device: Any) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    values = director.stream(forever)
    assert next(values) == 1
    values.close()  # type: ignore[attr-defined]
    assert closed.wait(PATIENCE)
    assert director.run(double, 1) == 2


def test_a_model_is_loaded_once(director: SyncDirector) -> None:
    loads: list[Device] = []
    model = Model(lambda device: loads.append(device) or "replica", name="m")  # type: ignore[func-returns-value]
    director.load(model)
    assert sorted(str(device) for device in loads) == sorted(str(device) for device in director.devices)
    assert director.run(lambda replica: replica, model=model) == "replica"
    assert len(loads) == len(director.devices)


def test_leaving_the_block_waits_for_the_jobs() -> None:
    hold = Hold()
    with SyncDirector("cpu") as director:
        future = director.submit(hold, "done")
        assert hold.has_begun.wait(PATIENCE)
        threading.Timer(0.05, hold.may_end.set).start()
    assert future.result(0) == "done"
    assert director.state is DirectorState.CLOSED
    assert loops() == 0


def test_leaving_by_an_error_fails_what_waits() -> None:
    hold, late = Hold(), []
    with pytest.raises(KeyError), SyncDirector("cpu") as director:  # noqa: PT012
        director.submit(hold)
        assert hold.has_begun.wait(PATIENCE)
        waiting = director.submit(lambda _: late.append(1))
        waiting.add_done_callback(lambda _: hold.may_end.set())
        raise KeyError
    with pytest.raises(DirectorClosed):
        waiting.result(PATIENCE)
    assert not late
    assert loops() == 0


def test_it_closes_in_steps_too() -> None:
    hold = Hold()
    director = SyncDirector("cpu").start()
    running = director.submit(hold)
    assert hold.has_begun.wait(PATIENCE)
    waiting = director.submit(hold)
    director.close(timeout=0, grace=0.01)
    assert [type(future.exception(0)) for future in (running, waiting)] == [JobAborted, DirectorClosed]
    assert director.stats().failed == 2
    assert loops() == 0
    hold.may_end.set()


def test_it_starts_and_closes_by_call_too() -> None:
    director = SyncDirector("cpu").start()
    assert director.healthy
    with pytest.raises(RuntimeError, match="open already"):
        director.start()
    director.close()
    director.close()
    with pytest.raises(RuntimeError, match="is closed: use"):
        director.run(double, 1)


def test_it_is_closed_for_calls_before_it_has_started_and_after_its_close() -> None:
    def states() -> list[str]:
        calls: list[Callable[[], object]] = [
            lambda: director.run(double, 1),
            lambda: director.submit(double, 1),
            lambda: director.map(double, [1]),
            lambda: director.stream(double, 1),
            lambda: director.load(Model(str)),
        ]
        found = []
        for call in calls:
            with pytest.raises(DirectorClosed, match="use `with SyncDirector") as refused:
                call()
            found.append(refused.value.state)
        return found

    director = SyncDirector("cpu")
    assert states() == ["new"] * 5
    with director:
        pass
    assert states() == ["closed"] * 5


def test_a_start_that_fails_leaves_nothing() -> None:
    with pytest.raises(NoDevices):
        SyncDirector("cuda:7").start()
    assert loops() == 0


def test_a_timeout_is_an_error_of_the_job(director: SyncDirector) -> None:
    hold = Hold()
    with pytest.raises(JobTimeout):
        director.run(hold, timeout=0.01)
    hold.may_end.set()


def test_a_close_while_others_call() -> None:
    director = SyncDirector("cpu").start()
    hold = Hold()
    outcomes: list[Any] = []

    def call() -> None:
        try:
            outcomes.append(director.run(hold, 1))
        except (DirectorClosed, RuntimeError, CancelledError) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert hold.has_begun.wait(PATIENCE)
    hold.may_end.set()
    director.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(outcomes) == 3
    assert loops() == 0


def test_its_own_thread_is_told_rather_than_stopped(director: SyncDirector) -> None:
    told: Future[str] = Future()

    def ask(_: Any) -> None:
        try:
            director.run(double, 1)
        except RuntimeError as error:
            told.set_result(str(error))

    hold = Hold()
    future = director.submit(hold)
    future.add_done_callback(ask)
    hold.may_end.set()
    assert "own event loop" in told.result(PATIENCE)


def test_ctrl_c_cancels_what_the_caller_waits_for(director: SyncDirector) -> None:
    hold = Hold()

    def press() -> None:
        assert hold.has_begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        director.run(hold)
    presser.join(PATIENCE)
    hold.may_end.set()
    assert director.run(double, 1) == 2
    assert director.stats().cancelled == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_copy_is_told_what_to_do(director: SyncDirector) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            director.run(double, 1)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert "after the fork" in answer.read()
    os.waitpid(child, 0)
    assert director.run(double, 1) == 2
