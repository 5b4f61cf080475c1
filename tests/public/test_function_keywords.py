"""Keywords of a `Function`'s calls go to the function, options to `with_options`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from director import Director, Model, current_job
from public import calls
from public.test_own_executor import Recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(params=["thread", "process"])
async def director(request: pytest.FixtureRequest) -> AsyncIterator[Director]:
    async with Director("simulated:1", executor=request.param) as director:
        yield director


async def test_keywords_of_a_call_and_of_submit_go_to_the_function(director: Director) -> None:
    scaled = director.function(calls.scaled)
    assert await scaled(2) == (2, 1, 0)
    assert await scaled(2, scale=3) == (2, 3, 0)
    assert await scaled(item=2, offset=5) == (2, 1, 5)
    assert await scaled.submit(2, scale=3, offset=1) == (2, 3, 1)
    assert scaled.submit(2, scale=3).name == "scaled"


async def test_keywords_of_a_stream_go_to_the_generator_function(director: Director) -> None:
    count = director.function(calls.count)
    assert [value async for value in count.stream(2, step=10)] == [0, 10]
    assert [value async for value in count.stream(n=3, buffer=1)] == [0, 1, 2]


async def test_what_the_function_says_of_a_wrong_keyword_reaches_the_caller(director: Director) -> None:
    with pytest.raises(TypeError, match="'speed'"):
        await director.function(calls.scaled)(2, speed=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("option", ["priority", "deadline", "tenant", "model", "buffer"])
async def test_an_option_among_the_keywords_is_refused_at_once(option: str) -> None:
    keywords: Any = {option: None, "scale": 2}
    async with Director("simulated:1") as director:
        scaled = director.function(calls.scaled)
        for call in (scaled.submit, director.function(functools.wraps(calls.scaled)(lambda *_, **__: 1)).submit):
            with pytest.raises(TypeError, match=rf"takes no {option}: .*scaled\.with_options\({option}=\.\.\.\)"):
                call(2, **keywords)
        with pytest.raises(TypeError, match="with_options"):
            await scaled(2, **keywords)
        assert director.stats().queued == director.stats().succeeded == 0


async def test_an_option_among_the_keywords_of_a_stream_is_refused() -> None:
    count: Any = Director("simulated:1").function(calls.count)
    with pytest.raises(TypeError, match=r"count\.with_options\(priority=\.\.\.\)"):
        count.stream(2, priority=3)


async def test_an_option_of_batches_among_the_keywords_is_bound_with_function() -> None:
    async with Director("simulated:1") as director:
        scaled: Any = director.function(calls.scaled)
        with pytest.raises(TypeError, match=r"director\.function\(max_wait=\.\.\.\)"):
            scaled.submit(2, max_wait=1)


async def test_a_parameter_with_the_name_of_an_option_is_the_functions() -> None:
    def timed(_device: Any, timeout: float = 0, **others: Any) -> Any:
        return timeout, others, current_job().priority

    def buffered(_device: Any, buffer: int) -> Iterator[int]:
        yield buffer

    async with Director("simulated:1") as director:
        bound: Any = director.function(timed, priority=1)
        assert await bound(timeout=7, priority=5) == (7, {"priority": 5}, 1)
        assert [value async for value in director.function(buffered).stream(buffer=9)] == [9]


async def test_the_resource_is_no_keyword() -> None:
    def detect(model: str, image: int) -> tuple[str, int]:
        return model, image

    async with Director("simulated:1") as director:
        bound: Any = director.function(detect, model=Model(lambda _: "net"))
        assert await bound(image=3) == ("net", 3)
        with pytest.raises(TypeError, match="with_options"):
            bound.submit(3, model=Model(lambda _: "other"))


async def test_keywords_of_any_name() -> None:
    def odd(_device: Any, **keywords: Any) -> list[str]:
        return sorted(keywords)

    async with Director("simulated:1") as director:
        bound: Any = director.function(odd)
        assert await bound(self=1, fn=2, args=3, kwargs=4, func=5) == ["args", "fn", "func", "kwargs", "self"]


async def test_a_builtin_without_a_signature_gets_its_keywords() -> None:
    async with Director("simulated:1") as director:
        made: Any = director.function(dict, model=Model(lambda _: {"b": 2}))
        assert await made(priority=1) == {"b": 2, "priority": 1}


async def test_map_passes_no_keywords() -> None:
    async with Director("simulated:1") as director:
        scaled: Any = director.function(calls.scaled)
        assert [result async for result in scaled.map([1, 2])] == [(1, 1, 0), (2, 1, 0)]
        for keywords in ({"scale": 3}, {"priority": 3}):
            with pytest.raises(
                TypeError, match=r"scaled\.map\(\) .* no keywords, not .*functools\.partial.*with_options"
            ):
                scaled.map([1, 2], **keywords)


async def test_a_function_of_batches_takes_one_positional_item() -> None:
    async with Director("simulated:1") as director:

        @director.function(max_batch_size=4)
        def double(_device: Any, items: list[int]) -> list[int]:
            return [2 * item for item in items]

        call: Any = double
        for args, keywords in [((), {"items": 1}), ((1,), {"scale": 2}), ((1,), {"priority": 2})]:
            with pytest.raises(TypeError, match="double takes batches: call it with one positional item, without"):
                call.submit(*args, **keywords)
        for args in ((), (1, 2)):
            with pytest.raises(TypeError, match="double takes batches: call it with one item"):
                await call(*args)
        assert await double(3) == 6


async def test_a_runner_of_the_users_gets_them_as_keywords() -> None:

    executor = Recording()
    async with Director("simulated:1", executor=executor) as director:
        assert await director.function(calls.scaled)(2, scale=3) == (2, 3, 0)
        assert await director.run(functools.partial(calls.scaled, scale=4), 2) == (2, 4, 0)
        assert [call.kwargs for call in executor.calls] == [{"scale": 3}, {"scale": 4}]
        assert {call.fn for call in executor.calls} == {calls.scaled}


async def test_settings_of_streams_are_bound_as_options() -> None:
    async with Director("simulated:1") as director:
        count = director.function(calls.count, buffer=1, slow_reader_timeout=5)
        assert [value async for value in count.with_options(buffer=3).stream(4)] == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="buffer"):
            count.with_options(buffer=0).stream(4)
        with pytest.raises(TypeError, match="buffer: of streams, and scaled is no generator function"):
            director.function(calls.scaled, buffer=3)
        wrong: Any = {"buffer": 3}
        with pytest.raises(TypeError, match="'buffer' is an option of streams"):
            director.submit(calls.scaled, 1, **wrong)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("priorty", "priority"), ("max_batch", "max_batch_size"), ("bufer", "buffer")]
)
async def test_an_unknown_option_names_the_one_that_is_meant(wrong: str, meant: str) -> None:
    options: Any = {wrong: 1}
    async with Director("simulated:1") as director:
        gives: list[Any] = [
            lambda: director.submit(calls.scaled, 1, **options),
            lambda: director.map(calls.scaled, [1], **options),
            lambda: director.stream(calls.count, 1, **options),
            lambda: director.function(calls.scaled, **options),
            lambda: director.function(calls.scaled).with_options(**options),
        ]
        for give in gives:
            with pytest.raises(TypeError, match=rf"unknown option '{wrong}', did you mean {meant}\?"):
                give()
        with pytest.raises(TypeError, match="unknown option 'xyzzy'; known: model, priority"):
            director.submit(calls.scaled, 1, xyzzy=1)  # type: ignore[call-overload]
