"""The errors of calls and loads say with a server what they say without one."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness import served
from public import calls

from director import Director, Model
from server.conftest import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs
EXECUTORS = pytest.mark.parametrize("executor", ["thread", "process"])


async def error_of(awaitable: Any) -> tuple[type[BaseException], str, list[str]]:
    """The class of what it raises, its text, and the notes that are not of a traceback."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await awaitable
    notes = getattr(caught.value, "__notes__", [])
    return type(caught.value), str(caught.value), [note for note in notes if "In the process of" not in note]


@EXECUTORS
async def test_a_call_with_other_arguments_says_what_the_first_one_is(make: Make, executor: str) -> None:
    director = await make(executor=executor)
    other: Any = lambda _only: None  # noqa: E731

    async def one_of_stream() -> None:
        await anext(director.stream(calls.count, 1, 2, 3))

    for call, said in [
        (director.run(calls.one, 1), "one(device, *args)"),
        (director.run(other, 1), "<lambda>(device, *args)"),
        (director.run(calls.one, 1, model=Model(calls.net)), "one(replica, *args)"),
        (director.function(calls.one, max_batch_size=2)(1), "one(device, items)"),
        (one_of_stream(), "count(device, *args)"),
    ]:
        kind, _, notes = await error_of(call)
        assert kind is TypeError
        assert len(notes) == 1
        assert notes[0].startswith(f"director called {said}")
    assert await error_of(director.run(calls.raises_within)) == (TypeError, "object of type 'int' has no len()", [])


@EXECUTORS
async def test_what_a_function_may_not_return_is_named(make: Make, executor: str) -> None:
    director = await make(executor=executor)

    kind, text, _ = await error_of(director.run(calls.returns_generator))
    assert kind is TypeError
    assert text.startswith("returns_generator returned a generator")
    _, text, _ = await error_of(director.run(lambda _device: (number for number in range(3))))
    assert "<lambda> returned a generator" in text
    _, text, _ = await error_of(director.run(partial(served.unpicklable_result)))
    assert "the result of unpicklable_result can't be sent" in text


@EXECUTORS
async def test_a_load_that_fails_says_where(make: Make, executor: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="director")
    director = await make("simulated:2", executor=executor)
    model = Model(partial(served.fail, second="no such file"), name="detector", devices=[0])

    kind, _, notes = await error_of(director.run(served.process, model=model))

    assert kind is served.Odd
    assert notes == ["director: detector could not be loaded on simulated:0"]
    await until(lambda: "loading detector on simulated:0 failed" in caplog.text)
    assert "if there are any: Odd: (1, 'no such file')" in caplog.text


async def test_a_lease_whose_model_can_not_be_loaded_is_not_given(make: Make) -> None:
    director = await make()

    with pytest.raises(served.Odd):
        async with director.lease(model=Model(partial(served.fail, second="no such file"))):
            pytest.fail("it was given")
    async with director.lease(model=Model(served.load)) as device:
        assert device in director.devices


async def test_equal_models_of_one_application_are_two_and_those_of_several_one(make: Make) -> None:
    one, two = await make(), await make()
    mine = [Model(served.load) for _ in range(2)]

    replicas = [await one.run(served.replica, model=model) for model in mine]
    other = await two.run(served.replica, model=Model(served.load))

    assert replicas[0] != replicas[1]
    assert [await one.run(served.replica, model=model) for model in mine] == replicas
    assert other in replicas
