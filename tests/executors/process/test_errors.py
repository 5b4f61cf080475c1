"""What fails in a child fails for its own job alone, with the reason and the child's traceback."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import traceback
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
    for fn, words in ((calls.throw_picky, "Picky: 1 and 2"), (calls.throw_holding, "Holding: it has a lock")):
        error = await raised(director.submit(fn))
        assert type(error) is JobError
        assert words in str(error)
        assert "could not be sent from its process" in str(error)
        assert f"in {fn.__name__}" in error.__notes__[0]


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
