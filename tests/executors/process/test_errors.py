"""What fails in a child fails for its own job alone, with the reason and the child's traceback."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome

from director import Director, Job, JobError
from executors.process import calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def director() -> AsyncIterator[Director]:
    """One that must serve on, in the same process, after everything that a test does."""
    async with Director("cpu", executor="process") as director:
        before = await director.run(calls.process_id)
        yield director
        assert await director.run(calls.process_id) == before


async def raised(job: Job[Any]) -> BaseException:
    """What a job ends with; SystemExit must not pass through a task."""
    await asyncio.wait([job])
    error = asyncio.CancelledError() if job.cancelled() else job.exception()
    assert error is not None
    return error


@pytest.fixture
def no_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)


async def test_an_exception_is_itself_and_tells_where_it_was_raised(director: Director) -> None:
    error = await raised(director.submit(calls.throw_chained))
    assert type(error) is calls.Rich
    assert (error.args, error.code) == (("the second", 7), 7)
    text = "".join(traceback.format_exception(error))
    assert "In the process of cpu:0 (pid " in text
    assert "ValueError: the first" in text
    assert "The above exception was the direct cause" in text
    assert "in throw_chained" in text
    (note,) = error.__notes__
    assert "_process" not in note, "our own frames say nothing to the user"


async def test_whatever_a_function_raises(director: Director) -> None:
    for error in (
        ValueError("plain"),
        KeyError("key"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("the base"),
        ExceptionGroup("two", [ValueError("a"), TypeError("b")]),
        OSError(2, "No such file", "name"),
        asyncio.InvalidStateError("odd"),
    ):
        found = await raised(director.submit(calls.throw, error))
        assert type(found) is type(error)
        assert str(found) == str(error)


async def test_stop_iteration_can_not_be_a_future_s_exception(director: Director) -> None:
    found = await raised(director.submit(calls.throw, StopIteration(1)))
    assert isinstance(found, RuntimeError)
    assert isinstance(found.__cause__, StopIteration)


async def test_a_job_may_cancel_itself(director: Director) -> None:
    assert isinstance(await raised(director.submit(calls.throw, asyncio.CancelledError())), asyncio.CancelledError)


async def test_sys_exit_ends_the_job_and_not_the_child(director: Director) -> None:
    error = await raised(director.submit(calls.leave_by_exit))
    assert isinstance(error, SystemExit)
    assert error.code == 3


async def test_an_exception_that_can_not_travel_is_described(director: Director) -> None:
    error = await raised(director.submit(calls.throw_holding))
    assert type(error) is JobError
    assert "Holding: it has a lock" in str(error)
    assert "could not be sent from its process" in str(error)
    assert "in throw_holding" in error.__notes__[0]


async def test_an_exception_whose_init_takes_other_arguments_comes_unwrapped(director: Director) -> None:
    """Pickle would call `__init__` with `args`."""
    error = await raised(director.submit(calls.throw_picky))
    assert type(error) is calls.Picky
    assert (str(error), error.args, error.sum) == ("1 and 2", ("1 and 2",), 3)
    assert "in throw_picky" in error.__notes__[0]
    missing = await raised(director.submit(calls.throw_missing))
    assert type(missing) is calls.Missing
    assert (str(missing), missing.errno, missing.filename, missing.url) == (
        "[Errno 2] not here: 'weights.bin'",
        2,
        "weights.bin",
        "https://example.org",
    )


async def test_one_that_says_itself_how_it_is_pickled_is_believed(director: Director) -> None:
    error = await raised(director.submit(calls.throw_own_way))
    assert type(error) is JobError
    assert "OwnWay: 1 and 2" in str(error)


async def test_an_exception_without_a_text_travels(director: Director) -> None:
    error = await raised(director.submit(calls.throw_textless))
    assert type(error) is calls.Textless
    assert "Textless: <exception str() failed>" in error.__notes__[0]


async def test_an_exception_of_a_local_class(director: Director, no_cloudpickle: None) -> None:
    error = await raised(director.submit(calls.throw_local))
    assert "nobody else knows it" in str(error)


async def test_arguments_that_can_not_be_pickled(director: Director) -> None:
    for value in (threading.Lock(), calls.Unsendable(), [bytes(2_000_000), threading.Lock()]):
        error = await raised(director.submit(calls.echo, value))
        assert isinstance(error, pickle.PicklingError)
        assert "the call of echo can't be sent to another process: " in str(error)


async def test_results_that_can_not_be_pickled(director: Director) -> None:
    for size in (0, 3_000_000):
        error = await raised(director.submit(calls.give_lock, size))
        assert isinstance(error, pickle.PicklingError)
        assert "the result can't be sent to another process: " in str(error)
        assert "lock" in str(error)


async def test_arguments_that_can_not_be_unpickled(director: Director) -> None:
    error = await raised(director.submit(calls.echo, calls.Unloadable()))
    assert repr(error) == "ValueError('no way back')"
    assert "in _refuse" in error.__notes__[0]


async def test_results_that_can_not_be_unpickled(director: Director) -> None:
    error = await raised(director.submit(calls.give_unloadable))
    assert isinstance(error, pickle.PicklingError)
    assert "the result of give_unloadable can't be unpickled: ValueError: no way back" in str(error)
    assert isinstance(error.__cause__, ValueError)


async def test_a_lambda_without_cloudpickle_says_what_helps(director: Director, no_cloudpickle: None) -> None:
    error = await raised(director.submit(lambda _: 1))
    assert isinstance(error, pickle.PicklingError)
    assert "top level of a module" in str(error)
    assert "gpu-director[process]" in str(error)


async def test_one_of_many_fails_alone(director: Director) -> None:
    values = [1, threading.Lock(), 2, calls.Unloadable(), 3]
    results = [await outcome(director.submit(calls.echo, value)) for value in values]
    assert [results[n] for n in (0, 2, 4)] == [1, 2, 3]
    assert [type(results[n]) for n in (1, 3)] == [pickle.PicklingError, ValueError]


# ---- what pickle leaves out, and what can't be rebuilt


class Frozen(OSError):
    """Can't be rebuilt: its `__init__` wants a keyword, which its `__reduce__` leaves out."""

    def __init__(self, text: str, *, response: int) -> None:
        super().__init__(text)
        self.response = response

    def __reduce__(self) -> Any:
        return Frozen, self.args


def raise_from(_device: object) -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise Frozen("second", response=1) from first
    except OSError as second:
        raise ValueError("third") from second


def raise_during(_device: object) -> None:
    try:
        raise KeyError("before")
    except KeyError:
        raise ValueError("during")  # noqa: B904 - that is the case


def raise_from_none(_device: object) -> None:
    try:
        raise KeyError("hidden")
    except KeyError:
        raise ValueError("alone") from None


def raise_in_a_circle(_device: object) -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


async def test_what_an_exception_was_raised_from_comes_along(director: Director) -> None:
    error = await outcome(director.submit(raise_from))
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, JobError)
    assert str(error.__cause__).startswith("Frozen: second (the exception itself could not be sent")
    assert repr(error.__cause__.__cause__) == "KeyError('first')"
    error = await outcome(director.submit(raise_during))
    assert (repr(error.__context__), error.__cause__) == ("KeyError('before')", None)
    assert not error.__suppress_context__
    error = await outcome(director.submit(raise_from_none))
    assert error.__suppress_context__
    assert error.__cause__ is None
    error = await outcome(director.submit(raise_in_a_circle))
    assert repr(error.__cause__) == "KeyError('second')"
    assert error.__cause__ is not None
    assert error.__cause__.__cause__ is None


def raise_group(_device: object) -> None:
    inner = ValueError("in it")
    inner.__cause__ = KeyError("its cause")
    raise ExceptionGroup("several", [inner, ExceptionGroup("nested", [TypeError("deep")])])


def raise_group_with_one_that_stays(_device: object) -> None:
    raise ExceptionGroup("several", [ValueError("in it"), Frozen("429", response=1)])


async def test_a_group_is_one_with_its_members_and_their_causes(director: Director) -> None:
    error = await outcome(director.submit(raise_group))
    assert isinstance(error, ExceptionGroup)
    assert error.message == "several"
    assert repr(error.exceptions[0].__cause__) == "KeyError('its cause')"
    assert error.subgroup(TypeError) is not None


async def test_a_member_that_can_not_travel_takes_no_other_along(director: Director) -> None:
    error = await outcome(director.submit(raise_group_with_one_that_stays))
    assert isinstance(error, ExceptionGroup)
    assert error.message == "several"
    first, second = error.exceptions
    assert repr(first) == "ValueError('in it')"
    assert isinstance(second, JobError)
    assert "Frozen: 429" in str(second)
    assert any("The group itself could not be sent" in note for note in error.__notes__)


def fail_first(_device: object, path: str) -> str:
    with suppress(FileExistsError):
        Path(path).touch(exist_ok=False)
        raise Frozen("try again", response=429)
    return "again"


@pytest.mark.parametrize("named", [Frozen, OSError])
async def test_an_error_that_can_not_be_rebuilt_is_tried_again_by_its_class(
    director: Director, tmp_path: Path, named: type[Exception]
) -> None:
    job = director.submit(fail_first, str(tmp_path / "once"), retries=1, retry_on=(named,))
    assert await job == "again"
    assert job.attempts == 2
    other = director.submit(fail_first, str(tmp_path / "twice"), retries=1, retry_on=(KeyError,))
    assert isinstance(await outcome(other), JobError)
    assert other.attempts == 1
