"""Generator functions outside of `stream`, and coroutine functions: refused where they are given, with the way out."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness.odd import Silent

from director import Director, Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_DIRECTOR = Director("simulated:1")


def generator(_device: Any, *_args: Any) -> Iterator[int]:
    yield 1


async def coroutine(_device: Any, *_args: Any) -> None: ...


async def asynchronous(_device: Any, *_args: Any) -> AsyncIterator[int]:
    yield 1


class Makes:
    """Each method makes something else; calling an object makes a generator."""

    def generator(self, _device: Any, *_args: Any) -> Iterator[int]:
        yield 1

    async def coroutine(self, _device: Any, *_args: Any) -> None: ...

    @staticmethod
    async def asynchronous(_device: Any, *_args: Any) -> AsyncIterator[int]:
        yield 1

    def __call__(self, _device: Any, *_args: Any) -> Iterator[int]:
        yield 1


class Statically:
    @staticmethod
    async def __call__(_device: Any, *_args: Any) -> None: ...


class ByPartial:
    __call__ = staticmethod(partial(generator))  # a bare `partial` is to become a method with Python 3.14


GENERATORS = [generator, partial(generator), Makes().generator, Makes(), partial(Makes().generator), ByPartial()]
COROUTINES = [coroutine, partial(partial(coroutine)), Makes().coroutine, Statically(), asyncio.sleep]
ASYNCHRONOUS = [asynchronous, partial(asynchronous), Makes.asynchronous]
ALL = [
    *((fn, r"a generator function.*stream\(\).*return a list") for fn in GENERATORS),
    *((fn, "a coroutine function: await it yourself") for fn in COROUTINES),
    *((fn, "an asynchronous generator function: iterate over it yourself") for fn in ASYNCHRONOUS),
]


@pytest.mark.parametrize(("fn", "says"), ALL)
async def test_no_method_of_a_director_takes_one(fn: Any, says: str) -> None:
    async with Director("simulated:1") as director:
        for give in (director.submit, director.map):
            with pytest.raises(TypeError, match=says):
                give(fn, [1])
        with pytest.raises(TypeError, match=says):
            await director.run(fn, 1)
        assert director.stats().queued == director.stats().running == 0


@pytest.mark.parametrize("fn", GENERATORS)
async def test_a_generator_function_can_be_bound_and_only_streams(fn: Any) -> None:
    async with Director("simulated:1") as director:
        bound = director.function(fn)
        assert [value async for value in bound.stream()] == [1]
        for give in (bound.submit, bound.map):
            with pytest.raises(TypeError, match="a generator function"):
                give([1])
        with pytest.raises(TypeError, match="a generator function"):
            await bound(1)


@pytest.mark.parametrize("fn", GENERATORS)
async def test_a_function_of_batches_returns_a_list(fn: Any) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="or return a list"):
            await director.function(fn, max_batch_size=4)(1)


@pytest.mark.parametrize("fn", [*COROUTINES, *ASYNCHRONOUS])
def test_a_coroutine_function_is_refused_where_it_is_bound(fn: Any) -> None:
    with pytest.raises(TypeError, match=r"a coroutine function|an asynchronous generator function"):
        _DIRECTOR.function(fn)


@pytest.mark.parametrize("fn", [generator, coroutine, asynchronous])
def test_a_model_takes_none(fn: Any) -> None:
    for arguments in ({"load": fn}, {"load": len, "warmup": fn}, {"load": len, "unload": fn}):
        with pytest.raises(TypeError, match="must be a blocking function"):
            Model(**arguments)
    for option in ("batch_key", "batch_cost"):
        with pytest.raises(TypeError, match=f"{option} must be a blocking function"):
            _DIRECTOR.function(lambda _, items: items, max_batch_size=2, **{option: fn})


async def test_one_that_a_function_returns_is_closed_on_its_thread_and_refused() -> None:
    closed = []

    def begun(_device: Any) -> Any:
        def count() -> Iterator[int]:
            try:
                yield 1
                yield 2
            finally:
                closed.append("count")
                raise RuntimeError("in the midst of it")

        values = count()
        next(values)
        return values

    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match=r"begun returned a generator.*return a list"):
            await director.run(begun)
        assert closed == ["count"]
        returned: Any
        for returned, says in [(coroutine, "a coroutine"), (asynchronous, "a generator"), (generator, "a generator")]:

            def wrapper(device: Any, *_: Any, returned: Any = returned) -> Any:
                return returned(device)

            with pytest.raises(TypeError, match=f"wrapper returned {says}"):
                await director.run(wrapper)
            batches = director.function(wrapper, max_batch_size=2)
            with pytest.raises(TypeError, match=f"wrapper returned {says}"):
                await batches(1)


async def test_an_executor_calls_them_as_given() -> None:
    async with Director("simulated:1") as director:
        made = await asyncio.wrap_future(director.as_executor().submit(generator, None))
        assert list(made) == [1]
        await (await asyncio.wrap_future(director.as_executor().submit(coroutine, None)))


async def test_what_can_be_called_and_what_can_not() -> None:
    not_callable: Any
    async with Director("simulated:1") as director:
        for fn in (repr, str, partial(repr), Silent(), type("A", (), {"__call__": lambda *_: 1})()):
            director.submit(fn)
        for not_callable in (None, 5, "name"):
            with pytest.raises(TypeError, match="a job needs a function to call"):
                director.submit(not_callable)
