"""A `Function` given to `run`, `submit`, `map` and `stream`: its options, and others that win for one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from director import Device, Director, Job, Model, QueueFull, SyncDirector, current_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.gates import Gate


def told(resource: Any, *args: Any) -> tuple[Any, ...]:
    """Its resource, its arguments and the options that a job can ask for."""
    job = current_job()
    return (resource if isinstance(resource, str) else "device", *args, job.priority, job.tenant, job.name)


async def test_it_is_called_as_itself_and_keywords_are_options_that_win() -> None:
    async with Director("simulated:1") as director:
        bound = director.function(told, priority=1, tenant="a", model=Model(lambda _: "net"))
        assert await director.run(bound, 1) == ("net", 1, 1, "a", "told")
        assert await director.run(bound, 1, priority=9) == ("net", 1, 9, "a", "told")
        job = director.submit(bound, 2, tenant="b", name="this one")
        assert isinstance(job, Job)
        assert (job.priority, job.tenant, job.name) == (1, "b", "this one")
        assert await job == ("net", 2, 1, "b", "this one")
        assert [found async for found in director.map(bound, [1, 2], priority=3)] == [
            ("net", 1, 3, "a", "told"),
            ("net", 2, 3, "a", "told"),
        ]
        assert await bound(1) == ("net", 1, 1, "a", "told")  # as it was


async def test_an_explicit_none_wins_too() -> None:
    async with Director("simulated:2") as director:
        bound = director.function(
            told, tenant="a", name="loud", model=Model(lambda _: "net"), deadline=0.001, devices=[1], when_full="refuse"
        )
        nothing: Any = dict.fromkeys(("tenant", "name", "model", "deadline", "devices", "when_full", "timeout"))
        assert await director.run(bound, **nothing) == ("device", 0, None, "told")
        assert await bound.with_options(**nothing)() == ("device", 0, None, "told")


async def test_no_retries_win_over_retries_with_their_errors() -> None:
    tries = []

    def failing(_device: Device) -> None:
        tries.append(1)
        raise OSError("again")

    async with Director("simulated:1") as director:
        bound = director.function(failing, retries=2, retry_on=OSError, backoff=0)
        with pytest.raises(OSError, match="again"):
            await director.run(bound, retries=0)
        assert len(tries) == 1
        with pytest.raises(OSError, match="again"):
            await director.run(director.function(failing, retries=1), retry_on=OSError, backoff=0)
        assert len(tries) == 3


async def test_a_generator_function_streams() -> None:
    def count(_device: Device, n: int) -> Iterator[tuple[int, int]]:
        for number in range(n):
            yield number, current_job().priority

    async with Director("simulated:1") as director:
        bound = director.function(count, priority=2, buffer=1)
        assert [value async for value in director.stream(bound, 2)] == [(0, 2), (1, 2)]
        assert [value async for value in director.stream(bound, 1, priority=4, buffer=8)] == [(0, 4)]
        assert [value async for value in director.stream(bound, 1, buffer=16)] == [(0, 2)]
        with pytest.raises(ValueError, match="buffer"):
            director.stream(bound, 1, buffer=0)
        for give in (director.submit, director.map):
            with pytest.raises(TypeError, match="count is a generator function"):
                give(bound, [1])
        with pytest.raises(TypeError, match="stream\\(\\) needs a generator function"):
            director.stream(director.function(told))  # type: ignore[call-overload]


async def test_its_batches_are_shared_with_its_own_calls(gate: Gate) -> None:
    sizes = []
    async with Director("simulated:1") as director:

        @director.function(max_batch_size=8)
        def double(_device: Device, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return [2 * item for item in items]

        held = director.submit(gate)
        await gate.begun()
        jobs = [double.submit(1), director.submit(double, 2, priority=1), director.submit(double, 3, deadline=60)]
        gate.open()
        assert await asyncio.gather(held, *jobs) == [held.result(), 2, 4, 6]
        assert sizes == [3]
        assert [found async for found in director.map(double, range(3))] == [0, 2, 4]


@pytest.mark.parametrize("option", ["max_batch_size", "max_wait", "batch_key", "isolate_failures"])
async def test_options_of_batches_can_not_be_given_there(option: str) -> None:
    async with Director("simulated:1") as director:
        bound: Any = director.function(told)
        given: Any = {option: 1}
        for give in (director.submit, director.map, director.stream):
            with pytest.raises(TypeError, match=f"'{option}' is an option of functions"):
                give(bound, [1], **given)
        with pytest.raises(TypeError, match=f"'{option}' is an option of functions"):
            await director.run(bound, 1, **given)


async def test_one_of_another_director_is_refused() -> None:
    async with Director("simulated:1", name="mine") as director, Director("simulated:1", name="other") as other:
        bound: Any = other.function(told)
        for give in (director.submit, director.map, director.stream):
            with pytest.raises(ValueError, match=r"told.*'other'.* another Director than .*'mine'.*__wrapped__"):
                give(bound, [1])
        with pytest.raises(ValueError, match="another Director"):
            await director.run(bound, 1)
        assert await director.run(bound.__wrapped__, 1) == ("device", 1, 0, None, "told")


def test_a_sync_director_refuses_those_of_others() -> None:
    bound: Any = Director("simulated:1").function(told)
    with SyncDirector("simulated:1") as director:
        for give in (director.run, director.submit, director.map, director.stream):
            with pytest.raises(ValueError, match="another Director"):
                give(bound, [1])


async def test_run_waits_and_submit_refuses_as_its_own_calls_do(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=0) as director:
        bound = director.function(gate)
        held = director.submit(bound)
        await gate.begun()
        with pytest.raises(QueueFull):
            director.submit(bound)
        with pytest.raises(QueueFull):
            await director.run(bound, when_full="refuse")
        waiting = director.submit(bound, 2, when_full="wait")
        gate.open()
        assert await waiting == 2
        await held


async def test_an_executor_refuses_one_with_the_way_out() -> None:
    async with Director("simulated:1") as director:
        bound: Any = director.function(told)
        executor = director.as_executor()
        for give in (executor.submit, lambda fn: next(executor.map(fn, [1]))):
            with pytest.raises(TypeError, match=r"told is a Function.*told\.__wrapped__.*run_coroutine_threadsafe"):
                give(bound)


def test_function_binds_no_function_again() -> None:
    director = Director("simulated:1")
    bound: Any = director.function(told)
    with pytest.raises(TypeError, match=r"told is a Function already: told\.with_options"):
        director.function(bound, priority=3)
