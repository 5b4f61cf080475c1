"""Every number that a user gives is taken as exactly what it is, or refused at once with its limits."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import until

from director import Device, Director, HealthRules, Model, ProcessExecutor
from director.asgi import RequestDeadline
from director.guard import Guard
from director.prometheus import Durations
from director.ray import RayExecutor
from director.testing import SimulatedDevice, TestClock, simulated_devices
from director.timeline import Timeline
from public.odd_numbers import NONE, ODD, WORTH, EvilFloat, EvilInt

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCEPTED = (TypeError, ValueError)


def give(_device: object, value: int = 42) -> int:
    return value


def give_late(_device: object, value: int) -> int:
    time.sleep(0.05)  # so that it is waited for
    return value


def fail(_device: object) -> None:
    raise LookupError


def give_all(_device: object, items: list[int]) -> list[int]:
    return items


def count(_device: object) -> Iterator[int]:
    yield from range(3)


async def app(*_: object) -> None:
    """An application of ASGI."""


# ---- what is said about a Director, a model, an executor, an instrument: what is kept of it

KEPT: dict[str, Callable[[Any], Any]] = {
    "slots": lambda v: Director("simulated:1", slots=v)._slots,
    "max_queue": lambda v: Director("simulated:1", max_queue=v)._policy.max_queue,
    "max_queue_per_tenant": lambda v: Director("simulated:1", max_queue_per_tenant=v)._policy.max_queue_per_tenant,
    "max_queue_per_tenant of one": lambda v: Director(
        "simulated:1", max_queue_per_tenant={"a": v}
    )._policy.max_queue_per_tenant["a"],  # type: ignore[index]
    "tenants": lambda v: Director("simulated:1", tenants={"a": v})._policy.weights["a"],
    "ageing": lambda v: Director("simulated:1", ageing=v)._policy.ageing,
    "failures": lambda v: HealthRules(failures=v).failures,
    "probation": lambda v: HealthRules(probation=v).probation,
    "longest": lambda v: HealthRules(longest=v).longest,
    "probe_timeout": lambda v: HealthRules(probe_timeout=v).probe_timeout,
    "interval": lambda v: HealthRules(interval=v).interval,
    "replicas": lambda v: Model(str, replicas=v).replicas,
    "max_jobs_per_worker": lambda v: ProcessExecutor(max_jobs_per_worker=v).max_jobs_per_worker,
    "grace": lambda v: ProcessExecutor(grace=v).grace,
    "grace of Ray": lambda v: RayExecutor(grace=v).grace,
    "start_timeout": lambda v: RayExecutor(start_timeout=v).start_timeout,
    "resources": lambda v: RayExecutor(resources={"CPU": v}).resources["CPU"],  # type: ignore[index]
    "longest_block": lambda v: Guard(longest_block=v)._longest_block,
    "first": lambda v: Guard(first=v)._notebook._first,
    "every": lambda v: Guard(every=v)._notebook._every,
    "limit": lambda v: Timeline(v)._records.maxlen,
    "buckets": lambda v: Durations([v]).buckets[0],
    "default": lambda v: RequestDeadline(app, default=v)._default,
    "most": lambda v: RequestDeadline(app, most=v)._most,
    "speed": lambda v: simulated_devices(1, speed=[v])[0].speed,
    "speed of a device": lambda v: SimulatedDevice(0, "SIM-0", "simulated:0", "simulated", speed=v).speed,
    "index": lambda v: Device(v, "CPU-0", "cpu:0", "cpu").index,
    "total_memory": lambda v: Device(0, "CPU-0", "cpu:0", "cpu", total_memory=v).total_memory,
    "memory": lambda v: simulated_devices(1, memory=v)[0].total_memory,
    "deadline": lambda v: Director("simulated:1").function(give, deadline=v)._options["deadline"],
    "timeout": lambda v: Director("simulated:1").function(give, timeout=v)._options["timeout"],
    "backoff": lambda v: Director("simulated:1").function(give, backoff=v)._options["backoff"],
    "retries": lambda v: Director("simulated:1").function(give, retries=v)._options["retries"],
    "priority": lambda v: Director("simulated:1").function(give, priority=v)._options["priority"],
    "max_batch_size": lambda v: rule(max_batch_size=v).max_size,
    "max_wait": lambda v: rule(max_batch_size=2, max_wait=v).max_wait,
    "batch_window": lambda v: rule(max_batch_size=2, batch_window=v, batch_cost=len).window,
    "max_batch_cost": lambda v: rule(max_batch_size=2, max_batch_cost=v, batch_cost=len).max_cost,
}
TRUTHS = {"priority"}  # as True and False too, which are 1 and 0
TEXTS = {"memory"}  # as texts too, with a unit or without


def rule(**options: Any) -> Any:
    return Director("simulated:1").function(give_all, **options)._rule


def check_words(error: Exception, option: str, name: str) -> None:
    """What a refusal says is about the option, and short."""
    assert option in str(error), name
    assert len(str(error)) < 500, name


@pytest.mark.parametrize("door", KEPT)
def test_a_number_is_kept_as_exactly_what_it_is_or_refused(door: str) -> None:
    option = door.partition(" ")[0]
    for name, (number, worth) in WORTH.items():
        try:
            kept = KEPT[door](number)
        except ACCEPTED as error:
            check_words(error, option, name)
        else:
            if kept is None:
                assert worth == math.inf, f"{name} is never, as None is"
            else:
                assert type(kept) in (int, float), name
                assert kept == worth, name


@pytest.mark.parametrize("door", KEPT)
def test_what_is_no_number_is_refused(door: str) -> None:
    option = door.partition(" ")[0]
    for name, value in NONE.items():
        if (name == "True" and door in TRUTHS) or (name == "digits" and door in TEXTS):
            continue
        with pytest.raises(TypeError, match=re.escape(option)):
            KEPT[door](value)


@pytest.mark.parametrize("door", KEPT)
def test_usual_numbers_are_taken(door: str) -> None:
    taken = {name for name in ("3", "EvilInt", "enum", "numpy int") if KEPT[door](WORTH[name][0]) == 3}
    assert len(taken) == 4


def test_refusals_say_the_limits() -> None:
    director = Director("simulated:1")
    with pytest.raises(ValueError, match=r"deadline must be positive seconds, and at most 1,000,000,000 seconds"):
        director.function(give, deadline=1e12)
    with pytest.raises(ValueError, match=r"at least -2\*\*63 and at most 2\*\*63 - 1 \(64 bits\)"):
        director.function(give, priority=2**63)
    with pytest.raises(ValueError, match=r"retries must be at least 0 .* not -1$"):
        director.function(give, retries=EvilInt(-1))
    with pytest.raises(ValueError, match=r"at least 1 and at most 10,000, not 0; .* leave it out of `devices`"):
        Director("simulated:1", slots=0)


# ---- calls: what is refused is refused at once, what is taken is run, and the others don't notice

Door = Callable[[Director, Any], Any]


async def stream_with(director: Director, **options: Any) -> list[int]:
    return [value async for value in director.stream(count, **options)]


async def map_with(director: Director, **options: Any) -> list[int]:
    return [value async for value in director.map(give, [1, 2], **options)]


async def lease_with(director: Director, **options: Any) -> None:
    async with director.lease(**options):
        pass


async def executor_with(director: Director, **options: Any) -> int:
    with director.as_executor(**options) as executor:
        return await asyncio.wrap_future(executor.submit(give, None))


async def batch_with(director: Director, cost: Any, **options: Any) -> list[int]:
    function = director.function(give_all, max_batch_size=3, batch_cost=lambda _: cost, **options)
    return await asyncio.gather(*[function(item) for item in range(5)])


async def retry_with(director: Director, **options: Any) -> None:
    with pytest.raises(LookupError):
        await director.run(fail, retries=1, retry_on=LookupError, **options)


CALLS: dict[str, Door] = {
    **{
        f"{option} of {name}": partial(lambda option, call, director, v: call(director, **{option: v}), option, call)
        for name, call in {
            "run": lambda director, **options: director.run(give, **options),
            "stream": stream_with,
            "map": map_with,
            "executor": executor_with,
        }.items()
        for option in ("deadline", "timeout", "priority", "retries", "backoff")
    },
    "priority of lease": lambda director, v: lease_with(director, priority=v),
    "retries of lease": lambda director, v: lease_with(director, retries=v),
    "buffer of stream": lambda director, v: stream_with(director, buffer=v),
    "slow_reader_timeout of stream": lambda director, v: stream_with(director, slow_reader_timeout=v),
    "window of map": lambda director, v: map_with(director, window=v),
    "batch_cost": lambda director, v: batch_with(director, v),
    "batch_cost with limit": lambda director, v: batch_with(director, v, max_batch_cost=3.0),
    "batch_cost with window": lambda director, v: batch_with(director, v, max_batch_cost=3, batch_window=2),
    "batch_cost with padding": lambda director, v: batch_with(
        director, v, max_batch_cost=1e30, max_wait=0.001, batch_padding=True
    ),
}


@pytest.mark.parametrize("door", CALLS)
async def test_a_call_with_an_odd_number_ends_and_others_run(door: str) -> None:
    option = door.partition(" ")[0]
    async with asyncio.timeout(30), Director("simulated:2") as director:
        for name, value in ODD.items():
            try:
                await CALLS[door](director, value)
            except TimeoutError:
                assert name in ("5e-324", "-0.0"), name  # a JobTimeout: that soon nothing is done
            except ACCEPTED as error:
                check_words(error, option, name)
            else:
                assert name not in NONE or (name, option) == ("True", "priority"), name
            assert await director.run(give, 42) == 42
        # The future of an executor is set by the worker thread, a moment before its job ends.
        await until(lambda: (director.stats().queued, director.stats().running) == (0, 0))


@pytest.mark.parametrize("name", ODD)
async def test_a_backoff_is_waited_for_or_refused(name: str, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        try:
            job = director.submit(fail, retries=2, retry_on=LookupError, backoff=ODD[name])
        except ACCEPTED:
            return
        while not job.done():
            clock.advance(1e9)
            await asyncio.sleep(0)
        assert isinstance(job.exception(), LookupError)
        assert director.stats().failed == 1


@pytest.mark.parametrize("name", ODD)
async def test_a_director_is_closed_within_any_time_or_says_no(name: str) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(give)
        try:
            await director.close(timeout=ODD[name])
        except ACCEPTED as error:
            check_words(error, "timeout must", name)
            assert await job == 42
        else:
            assert WORTH[name][1] == WORTH[name][1], "not a number"
            assert job.done()


@pytest.mark.parametrize("seconds", [1e9, 10**9, math.inf])
@pytest.mark.every_loop
async def test_the_longest_times(seconds: float) -> None:
    async with Director("simulated:1") as director:
        assert await director.run(give, deadline=seconds) == 42
        assert await director.run(give, timeout=seconds) == 42
        assert await director.function(give_all, max_batch_size=1, max_wait=seconds)(1) == 1


async def test_the_largest_numbers_are_of_use_in_a_process() -> None:
    executor = ProcessExecutor(grace=1e9, max_jobs_per_worker=2**63 - 1)
    async with Director("simulated:1", executor=executor, max_queue=2**63 - 1) as director:
        assert await director.run(give_late, 1, timeout=1e9, deadline=1e9) == 1
        assert await director.run(give, 2, priority=2**63 - 1, retries=2**63 - 1, backoff=1e9) == 2
        assert await director.run(give, 3, priority=-(2**63), timeout=EvilFloat(9), deadline=EvilFloat(9)) == 3
        assert await stream_with(director, buffer=2**63 - 1, slow_reader_timeout=1e9) == [0, 1, 2]
        for name in ("2**63", "-2**63 - 1", "10**400", "EvilReal"):
            with pytest.raises(ACCEPTED):
                director.submit(give, priority=ODD[name])
        assert await asyncio.gather(*[director.run(give, number) for number in range(20)]) == list(range(20))


async def test_the_largest_batches() -> None:
    most = 2**63 - 1
    async with Director("simulated:1") as director:
        function = director.function(give_all, max_batch_size=most, batch_window=most, batch_cost=float)
        assert [value async for value in function.map(range(40))] == list(range(40))
        soon = function.with_options(deadline=9)
        assert await asyncio.gather(*[soon(item) for item in range(9)]) == list(range(9))


async def test_a_sum_of_costs_is_finite() -> None:
    async with Director("simulated:1") as director:
        whole = director.function(give_all, max_batch_size=4, batch_cost=lambda _: 10**30, max_batch_cost=10**30)
        assert await asyncio.gather(*[whole(item) for item in range(9)]) == list(range(9))
        with pytest.raises(ValueError, match=r"batch_cost of give_all .* 1e\+30, not 1.7e\+308"):
            await director.function(give_all, max_batch_size=4, batch_cost=lambda _: 1.7e308)(1)


async def test_two_that_are_equal_by_their_own_word_are_told_apart() -> None:
    class Same(float):
        def __eq__(self, _: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    async with Director("simulated:1") as director:
        assert await director.run(give, timeout=Same(5)) == 42
        with pytest.raises(ValueError, match="timeout must be positive"):
            director.submit(give, timeout=Same(-1))
        with pytest.raises(TypeError, match="retries must be an int"):
            director.submit(give, retries=EvilFloat(1))


@pytest.mark.parametrize("name", ODD)
def test_a_clock_is_moved_on_or_stays(name: str) -> None:
    clock = TestClock()
    try:
        clock.advance(ODD[name])
    except ACCEPTED:
        assert clock.time() == 0
    else:
        assert clock.time() == WORTH[name][1]


@pytest.mark.parametrize("digits", ["10001", "9" * 30, "9" * 5000])
@pytest.mark.parametrize("kind", ["cpu", "simulated"])
async def test_so_many_stand_ins_are_refused(kind: str, digits: str) -> None:
    with pytest.raises(ValueError, match=r"at least 1"):
        await Director(f"{kind}:{digits}").start()
