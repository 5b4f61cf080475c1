"""The note on a `TypeError` that a call itself has raised: what the first argument of a job is."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from director import Director, Model
from public import calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=["thread", "process"])
async def director(request: pytest.FixtureRequest) -> AsyncIterator[Director]:
    async with Director("simulated:1", executor=request.param) as director:
        yield director


def notes_of(error: BaseException) -> list[str]:
    return [note for note in getattr(error, "__notes__", []) if note.startswith("director called ")]


@pytest.mark.parametrize(
    ("fn", "args", "called"),
    [
        (len, ("abc",), "len(device, *args)"),
        (calls.one, ("abc",), "one(device, *args)"),
        (partial(calls.one), ("abc",), "one(device, *args)"),
        (calls.Kept, ("abc",), "Kept(device, *args)"),
        (calls.scaled, (1, 2, 3, 4), "scaled(device, *args)"),
    ],
)
async def test_an_error_of_the_call_itself_says_it(
    director: Director, fn: Any, args: tuple[Any, ...], called: str
) -> None:
    with pytest.raises(TypeError) as caught:
        await director.run(fn, *args)
    (note,) = notes_of(caught.value)
    assert called in note
    assert "the replica of its model= or else the Device" in note
    assert f"`lambda device, *args: {called.partition('(')[0]}(*args)`" in note
    assert "director.as_executor()" in note


async def test_with_a_model_it_is_the_replica(director: Director) -> None:
    with pytest.raises(TypeError) as caught:
        await director.run(calls.one, 1, model=Model(calls.net))
    (note,) = notes_of(caught.value)
    assert "one(replica, *args)" in note


async def test_a_batch_is_called_with_items(director: Director) -> None:
    with pytest.raises(TypeError) as caught:
        await director.function(calls.one, max_batch_size=2)(1)
    (note,) = notes_of(caught.value)
    assert "one(device, items)" in note


async def test_a_stream(director: Director) -> None:
    with pytest.raises(TypeError) as caught:
        async for _ in director.stream(calls.count, 1, 2, 3):
            pass
    assert len(notes_of(caught.value)) == 1


@pytest.mark.parametrize("fn", [calls.raises_within, calls.calls_another_within, calls.raises_value_error])
async def test_an_error_of_the_body_has_no_note(director: Director, fn: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        await director.run(fn)
    assert notes_of(caught.value) == []


async def test_what_a_function_may_not_return_has_no_note(director: Director) -> None:
    with pytest.raises(TypeError) as caught:
        await director.run(calls.returns_generator)
    assert notes_of(caught.value) == []


async def test_an_executor_calls_as_given_and_adds_none(director: Director) -> None:
    executor = director.as_executor()
    assert await asyncio.wrap_future(executor.submit(len, "abc")) == 3
    with pytest.raises(TypeError) as caught:
        await asyncio.wrap_future(executor.submit(len, "abc", "def"))
    assert notes_of(caught.value) == []
