"""`submit` and `run`: what a job gets, the order of service, and what is refused before anything is queued."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, turns

from director import Director, DirectorClosed, DirectorState, JobState, Model, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable


def echo(resource: Any, *args: Any) -> tuple[Any, ...]:
    return (resource, *args)


async def test_the_first_argument_is_the_device_and_the_others_are_the_callers() -> None:
    async with Director("simulated:1") as director:
        device = director.devices[0]
        assert await director.run(echo) == (device,)
        assert await director.run(echo, 1, "two") == (device, 1, "two")
        assert await director.submit(echo, 1, "two") == (device, 1, "two")


async def test_with_a_model_the_first_argument_is_the_replica() -> None:
    model = Model(lambda device: f"replica on {device.label}")
    async with Director("simulated:1") as director:
        assert await director.run(echo, 1, model=model) == ("replica on simulated:0", 1)
        assert await director.submit(echo, 1, model=model) == ("replica on simulated:0", 1)


async def test_submit_returns_at_once_though_every_slot_is_taken(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        first = director.submit(gate)
        await gate.begun()
        second = director.submit(echo, "second")
        assert (first.state, second.state) == (JobState.RUNNING, JobState.QUEUED)
        gate.open()
        assert (await second)[1] == "second"


async def test_a_result_of_none_and_a_result_that_is_an_exception_are_results() -> None:
    error = ValueError("as a value")
    async with Director("simulated:1") as director:
        assert await director.run(lambda _: None) is None
        assert await director.run(lambda _: error) is error


async def test_higher_priority_runs_sooner_and_equals_in_order_of_arrival(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate, "first")
        await gate.begun()
        jobs = [
            director.submit(gate, (priority, number), priority=priority)
            for number, priority in enumerate([0, 5, -1, 5, 10, 0])
        ]
        gate.open()
        await asyncio.gather(*jobs)
    assert gate.items[1:] == [(10, 4), (5, 1), (5, 3), (0, 0), (0, 5), (-1, 2)]


async def test_priority_counts_between_jobs_with_and_without_devices_and_models(gate: Gate) -> None:
    model = Model(lambda device: device)
    async with Director("simulated:2") as director:
        held = [director.submit(gate, "first"), director.submit(gate, "first")]
        await gate.begun(2)
        options: list[dict[str, Any]] = [
            {"priority": 1},
            {"priority": 2, "devices": [0]},
            {"priority": 3, "model": model, "devices": [0]},
            {"priority": 4, "devices": [0]},
            {"priority": 5},
        ]
        on_zero = [job for job in held if job.device is director.devices[0]]
        jobs = [director.submit(gate, each["priority"], **each) for each in options]
        assert len(on_zero) == 1
        gate.let(1)  # whichever device comes free, it serves the highest that may run there
        await gate.begun()
        assert gate.items[2] == 5
        gate.open()
        await asyncio.gather(*jobs)
    assert [item for item in gate.items[2:] if item in (2, 3, 4)] == [4, 3, 2]


async def test_run_and_submit_are_served_in_one_order(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate, "first")
        await gate.begun()
        running = [asyncio.create_task(director.run(gate, "run")), director.submit(gate, "submit", priority=1)]
        await turns()
        running.append(director.submit(gate, "late"))
        gate.open()
        await asyncio.gather(*running)
    assert gate.items == ["first", "submit", "run", "late"]


WRONG: list[tuple[str, Any, type[Exception]]] = [
    ("priority", 1.5, TypeError),
    ("priority", "high", TypeError),
    ("priority", None, TypeError),
    ("deadline", "1", TypeError),
    ("deadline", True, TypeError),
    ("deadline", 0, ValueError),
    ("deadline", -1, ValueError),
    ("deadline", math.nan, ValueError),
    ("timeout", "1", TypeError),
    ("timeout", [1], TypeError),
    ("timeout", 0.0, ValueError),
    ("timeout", -0.1, ValueError),
    ("timeout", math.nan, ValueError),
    ("devices", 7, PlacementError),
    ("devices", "cuda:0", PlacementError),
    ("devices", [], PlacementError),
    ("devices", [0, 7], PlacementError),
    ("devices", 1.5, TypeError),
    ("devices", [None], TypeError),
    ("devices", True, TypeError),
    ("name", 5, TypeError),
    ("tenant", [], TypeError),
    ("retries", -1, ValueError),
    ("retries", 1.5, TypeError),
    ("retries", True, TypeError),
    ("retry_on", ValueError, ValueError),  # without retries
    ("retry_on", "ValueError", TypeError),
    ("backoff", -1, ValueError),
    ("max_batch_size", 8, TypeError),  # of a function only
    ("model", "detector", TypeError),
    ("model", echo, TypeError),
]
LATER = ["gpus"]


@pytest.mark.parametrize(("option", "value", "error"), WRONG, ids=[f"{row[0]}={row[1]!r:.20}" for row in WRONG])
async def test_a_wrong_option_is_refused_before_anything_is_queued(
    option: str, value: Any, error: type[Exception]
) -> None:
    options: dict[str, Any] = {option: value}
    async with Director("simulated:2") as director:
        with pytest.raises(error, match=option if error is not PlacementError else None):
            director.submit(echo, **options)
        with pytest.raises(error):
            await director.run(echo, **options)
        with pytest.raises(error):
            director.map(echo, [1], **options)
        with pytest.raises(error):
            director.as_executor(**options)
        with pytest.raises((error, TypeError)):  # a lease refuses deadlines whatever they are
            director.lease(**options)
        stats = director.stats()
        assert (stats.queued, stats.running, stats.succeeded, stats.failed) == (0, 0, 0, 0)


@pytest.mark.parametrize("option", [*LATER, "priorty", "args"])
async def test_an_unknown_option_is_refused_and_the_known_ones_are_named(option: str) -> None:
    options: dict[str, Any] = {option: 1}
    async with Director("simulated:1") as director:
        for use in (
            lambda: director.submit(echo, **options),
            lambda: director.map(echo, [1], **options),
            lambda: director.lease(**options),
            lambda: director.as_executor(**options),
            lambda: director.function(echo, **options),
            lambda: director.function(**options),
        ):
            with pytest.raises(TypeError, match=rf"'{option}'.*priority"):
                use()
        with pytest.raises(TypeError, match=option):
            await director.run(echo, **options)
        assert director.stats().queued == 0


async def test_what_is_not_callable_is_refused_at_once() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="call"):
            director.submit(5)  # type: ignore[arg-type]


async def test_a_coroutine_function_is_refused_at_once() -> None:
    async def mistaken(_device: Any) -> None: ...

    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="blocking"):
            (await director.submit(mistaken)).close()


EVERY_WAY_IN: list[Any] = [
    pytest.param(lambda director: director.submit(echo), id="submit"),
    pytest.param(lambda director: director.run(echo), id="run"),
    pytest.param(lambda director: director.map(echo, [1]), id="map"),
    pytest.param(lambda director: director.function(echo)(), id="function"),
    pytest.param(lambda director: director.function(echo).submit(), id="function.submit"),
    pytest.param(lambda director: director.function(echo).map([1]), id="function.map"),
    pytest.param(lambda director: director.lease(), id="lease"),
    pytest.param(lambda director: director.as_executor(), id="as_executor"),
    pytest.param(lambda director: director.load(Model(lambda device: device)), id="load"),
]


async def used(director: Director, use: Callable[[Director], Any]) -> None:
    result = use(director)
    if asyncio.iscoroutine(result):
        await result


async def refused(director: Director, use: Callable[[Director], Any]) -> DirectorClosed:
    with pytest.raises(DirectorClosed) as caught:
        await used(director, use)
    return caught.value


@pytest.mark.parametrize("use", EVERY_WAY_IN)
async def test_nothing_is_accepted_before_the_start_and_after_the_close(use: Callable[[Director], Any]) -> None:
    director = Director("simulated:1")
    error = await refused(director, use)
    assert error.state == DirectorState.NEW.value
    assert "start" in str(error)
    async with director:
        pass
    error = await refused(director, use)
    assert error.state == DirectorState.CLOSED.value
    assert "closed" in str(error)


@pytest.mark.parametrize("use", EVERY_WAY_IN)
async def test_nothing_is_accepted_while_it_drains(use: Callable[[Director], Any], gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate)
        await gate.begun()
        draining = asyncio.create_task(director.drain())
        await turns()
        error = await refused(director, use)
        assert error.state == DirectorState.DRAINING.value
        gate.open()
        await draining
        assert job.done()
        assert (await refused(director, use)).state == DirectorState.DRAINING.value


@pytest.mark.parametrize("use", [way for way in EVERY_WAY_IN if way.id != "as_executor"])
async def test_another_thread_and_loop_is_told_what_to_use_instead(use: Callable[[Director], Any]) -> None:
    async with Director("simulated:1") as director:

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="as_executor"):
                asyncio.run(used(director, use))

        await asyncio.to_thread(elsewhere)
        assert director.stats().queued == 0
