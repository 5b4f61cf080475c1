"""A Director with a server has the same methods, and its calls are made in the server process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness import served

from director import JobState, JobTimeout, Model, PlacementError
from director.events import JobEvent, JobRetried
from director.testing import simulated_devices
from server.conftest import server_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from director import Director
    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs


async def test_run_returns_what_the_function_returns_in_the_server(make: Make) -> None:
    director = await make()

    assert await director.run(served.add, 1, 2) == 3
    assert await director.run(served.process) != os.getpid()


async def test_submit_gives_a_job_with_its_device_and_times(make: Make) -> None:
    director = await make("simulated:2")

    job = director.submit(served.add, "a", "b")

    assert job.state is JobState.QUEUED
    assert await job == "ab"
    assert job.state is JobState.SUCCEEDED
    assert job.device in director.devices
    assert job.waited is not None
    assert job.waited >= 0
    assert job.ran is not None
    assert job.ran >= 0


async def test_a_job_that_runs_there_is_running_here(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()

    job = director.submit(served.hold, holder.path)
    await holder.begun()
    await until(lambda: job.state is JobState.RUNNING)

    assert job.device is director.devices[0]
    holder.let_go()
    assert await job != os.getpid()


async def test_what_the_function_raises_comes_with_its_traceback(make: Make) -> None:
    director = await make()

    with pytest.raises(served.Odd) as caught:
        await director.run(served.fail, "second")

    assert caught.value.second == "second"
    assert "in fail" in "".join(caught.value.__notes__)


async def test_partials_and_lambdas_travel_with_their_call(make: Make) -> None:
    director = await make()

    assert await director.run(partial(served.add, right=5), 1) == 6
    assert await director.run(lambda _device, x: x + 1, 1) == 2


async def test_map_keeps_the_order(make: Make) -> None:
    director = await make("simulated:2")

    assert [value async for value in director.map(partial(served.add, right=1), range(50))] == [*range(1, 51)]


async def test_a_stream_gives_all_values_in_order_and_then_its_error(make: Make) -> None:
    director = await make()

    assert [value async for value in director.stream(served.count, 100)] == [*range(100)]
    stream = director.stream(served.count_and_fail, 20)
    assert [await anext(stream) for _ in range(20)] == [*range(20)]
    with pytest.raises(served.Odd):
        await anext(stream)


async def test_no_value_is_lost_of_a_stream_that_is_over_at_once(make: Make) -> None:
    director = await make(slots=4)

    async def read(count: int) -> list[int]:
        return [value async for value in director.stream(served.count, count, buffer=8)]

    for _ in range(20):
        assert await asyncio.gather(*map(read, (1, 2, 3, 5, 8))) == [[*range(count)] for count in (1, 2, 3, 5, 8)]


async def test_a_reader_that_leaves_closes_the_generator(make: Make, tmp_path: Path) -> None:
    director, marker = await make(), tmp_path / "stream"

    stream = director.stream(served.count_for_ever, str(marker))
    async for value in stream:
        if value == 40:
            break
    await stream.aclose()

    await until((tmp_path / "stream.ended").exists)
    assert await director.run(served.add, 1, 1) == 2


async def test_a_function_of_batches_gets_the_items_that_wait(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    function = director.function(served.batch, max_batch_size=8)

    first = director.submit(served.hold, holder.path)
    await holder.begun()
    jobs = [function.submit(number) for number in (1, -2, 3)]
    holder.let_go()
    outcomes = await asyncio.gather(first, *jobs, return_exceptions=True)

    assert outcomes[1] == (1, 3)
    assert isinstance(outcomes[2], served.Odd)
    assert outcomes[3] == (3, 3)


async def test_a_model_is_loaded_once_for_all_applications(make: Make) -> None:
    one, two = await make(), await make()
    model, same = Model(served.load), Model(served.load)

    await one.load(model)
    first = await one.run(served.replica, model=model)
    second = await two.run(served.replica, model=same)

    assert first == second
    assert first["process"] != os.getpid()
    await until(lambda: two.stats().devices[0].models == ("load",))


async def test_a_loader_that_raises_fails_the_jobs_that_wait_for_it(make: Make) -> None:
    director = await make()

    with pytest.raises(served.Odd, match="no such file"):
        await director.run(served.replica, model=Model(served.no_load))


async def test_a_lease_holds_a_slot_of_the_server(make: Make) -> None:
    director = await make()

    async with director.lease() as device:
        assert device is director.devices[0]
        job = director.submit(served.add, 1, 1)
        await until(lambda: director.stats().queued == 1)
        assert job.state is JobState.QUEUED

    assert await job == 2


async def test_the_executor_calls_functions_as_given(make: Make) -> None:
    director = await make()
    executor = director.as_executor()

    assert await asyncio.wrap_future(executor.submit(pow, 2, 10)) == 1024
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(executor.submit(divmod, 1, 0))


async def test_a_cancelled_job_that_waits_never_runs(make: Make, hold: Callable[[], Holder], tmp_path: Path) -> None:
    director, holder = await make(), hold()
    first = director.submit(served.hold, holder.path)
    await holder.begun()

    job = director.submit(served.note, str(tmp_path / "log"), "never")
    assert job.cancel()
    holder.let_go()
    await first
    await director.run(served.note, str(tmp_path / "log"), "last")

    assert job.cancelled()
    assert (tmp_path / "log").read_text() == "last\n"


async def test_a_running_job_learns_that_it_was_cancelled(make: Make, tmp_path: Path) -> None:
    director = await make()
    job = director.submit(served.wait_cancelled, str(tmp_path / "w"))
    await until((tmp_path / "w.begun").exists)
    await until(lambda: job.state is JobState.RUNNING)

    job.cancel()

    assert job.cancelled()
    await until((tmp_path / "w.ended").exists)


async def test_a_timeout_counts_from_the_start_and_a_deadline_from_the_call(
    make: Make, hold: Callable[[], Holder]
) -> None:
    director, holder = await make(), hold()
    first = director.submit(served.hold, holder.path, timeout=0.05)
    with pytest.raises(JobTimeout) as running:
        await first
    assert running.value.phase == "running"

    with pytest.raises(JobTimeout) as queued:
        await director.run(served.add, 1, 1, deadline=0.02)
    assert queued.value.phase == "queued"
    holder.let_go()


async def test_the_first_of_two_applications_by_priority(
    make: Make, hold: Callable[[], Holder], tmp_path: Path
) -> None:
    one, two, holder, log = await make(), await make(), hold(), str(tmp_path / "log")
    held = one.submit(served.hold, holder.path)
    await holder.begun()

    low = one.submit(served.note, log, "low")
    await until(lambda: one.stats().queued == 1)
    high = two.submit(served.note, log, "high", priority=5)
    await until(lambda: one.stats().queued == 2)
    holder.let_go()
    await asyncio.gather(held, low, high)

    assert (tmp_path / "log").read_text().split() == ["high", "low"]


async def test_a_batch_has_items_of_several_applications(make: Make, hold: Callable[[], Holder]) -> None:
    one, two, holder = await make(), await make(), hold()
    first = one.function(served.hold_batch, max_batch_size=4).submit(holder.path)
    await holder.begun()

    jobs = [d.function(served.hold_batch, max_batch_size=4).submit("x") for d in (one, two, one)]
    await until(lambda: one.stats().queued == 3)
    holder.let_go()

    assert await asyncio.gather(first, *jobs) == [1, 3, 3, 3]


async def test_retries_happen_in_the_server_and_are_told_here(make: Make, tmp_path: Path) -> None:
    seen: list[Any] = []
    director = await make(hooks=[seen.append])

    job = director.submit(served.fail_until, str(tmp_path / "tries"), 2, retries=3, retry_on=served.Odd)

    assert await job == 3
    assert job.attempts == 3
    await director.close()
    told = [type(event).__name__ for event in seen if isinstance(event, JobEvent)]
    assert told == ["JobSubmitted", *["JobStarted", "JobRetried"] * 2, "JobStarted", "JobSucceeded"]
    retried = [event for event in seen if isinstance(event, JobRetried)]
    assert [(event.attempt, event.device, event.error.second) for event in retried] == [  # type: ignore[attr-defined]
        (attempt, simulated_devices(1)[0], "again") for attempt in (1, 2)
    ]


async def test_a_job_waits_here_too_for_its_next_attempt(make: Make, tmp_path: Path) -> None:
    director, log = await make(max_queue=1), tmp_path / "tries"
    job = director.submit(served.fail_until, str(log), 1, retries=1, retry_on=served.Odd, backoff=1e6)

    await until(lambda: job.attempts == 1 and job.state is JobState.QUEUED)
    assert job.device is None
    assert [reason.kind for reason in (await director.explain(job)).reasons] == ["retry"]
    assert job.cancel()

    assert await director.run(served.add, 1, 1, when_full="refuse") == 2
    assert log.read_text() == "x"


async def test_a_lost_server_leaves_a_job_the_retries_that_it_has_not_used(make: Make, tmp_path: Path) -> None:
    director, log = await make(), tmp_path / "tries"
    job = director.submit(served.fail_until, str(log), 9, retries=3, retry_on=served.Odd, backoff=0.3)
    await until(lambda: job.attempts == 2 and job.state is JobState.QUEUED)

    os.kill(server_of(director), signal.SIGKILL)

    with pytest.raises(served.Odd):
        await job
    assert len(log.read_text()) <= 4


async def test_progress_is_told_here(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    job = director.submit(served.progress, holder.path)

    await until(lambda: job.progress == {"done": 3})
    holder.let_go()

    assert await job == "progress"


async def test_a_log_record_of_a_job_comes_to_the_application_that_has_it(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    director = await make()

    with caplog.at_level(logging.WARNING, "served"):
        await director.run(served.say, "from the server")
        await until(lambda: "from the server" in caplog.messages)


async def test_large_arrays_cross_both_ways(make: Make) -> None:
    numpy: Any = pytest.importorskip("numpy")
    director = await make()
    array = numpy.arange(3_000_000, dtype="f8")

    total = await director.run(served.add, array, 1.0)

    assert (total == array + 1).all()


async def test_what_cannot_be_sent_is_refused_where_it_is_given(make: Make) -> None:
    director = await make()

    with pytest.raises(Exception, match="can't be sent"):
        director.submit(served.add, threading.Lock(), 1)
    with pytest.raises(ValueError, match="tenant must be a str"):
        director.submit(served.add, 1, 1, tenant=object())
    assert await director.run(served.add, 1, 1) == 2


async def test_stats_are_those_of_all_applications(make: Make) -> None:
    one, two = await make(), await make()

    await asyncio.gather(*(director.run(served.add, 1, 1) for director in (one, two) for _ in range(5)))

    await until(lambda: one.stats().succeeded == 10)
    await until(lambda: two.stats().succeeded == 10)


async def test_the_hooks_of_an_application_see_its_own_jobs(make: Make) -> None:
    seen: dict[str, list[str]] = {"one": [], "two": []}
    one = await make(hooks=[lambda event: seen["one"].append(type(event).__name__)])
    two = await make(hooks=[lambda event: seen["two"].append(type(event).__name__)])

    await one.run(served.add, 1, 1)

    assert seen["one"] == ["DirectorOpened", "JobSubmitted", "JobStarted", "JobSucceeded"]
    assert seen["two"] == ["DirectorOpened"]
    assert two.healthy


async def test_children_of_the_server_make_the_calls_with_executor_process(make: Make) -> None:
    director = await make(executor="process")
    function = director.function(served.batch, max_batch_size=4)

    assert await director.run(served.add, 1, 2) == 3
    assert await director.run(served.device) == director.devices[0].label
    assert await function(5) == (5, 1)
    assert [value async for value in director.stream(served.count, 30)] == [*range(30)]
    with pytest.raises(served.Odd):
        await director.run(served.fail, "there")
    model = Model(served.load)
    assert (await director.run(served.replica, model=model))["process"] == await director.run(served.process)


async def test_keywords_of_a_function_reach_it(make: Make) -> None:
    director = await make()

    assert await director.function(served.add)("a", right="b") == "ab"


async def test_an_around_of_director_and_model_is_entered_in_the_server(make: Make, tmp_path: Path) -> None:
    director = await make(around=served.Outside)

    assert await director.run(served.surroundings) == ["outside"]
    model = Model(served.load, around=served.Inside)
    assert await director.run(served.surroundings, model=model) == ["outside", "inside"]


async def test_a_model_that_is_unloaded_is_loaded_again(make: Make) -> None:
    one, two = await make(), await make()
    first = await one.run(served.replica, model=Model(served.load))

    await two.unload(Model(served.load))

    assert await one.run(served.replica, model=Model(served.load)) != first


async def test_what_can_never_run_is_refused_at_submission(make: Make) -> None:
    director = await make(simulated_devices(2, memory=10 << 30), memory_limit={0: "8GiB", 1: "4GiB"})
    never = {
        "9 GiB": {"memory": "9GiB"},
        "at most: simulated:1 4 GiB": {"memory": "5GiB", "devices": 1},
        "5 GiB for <Model 'load'>, 4 GiB for the call": {"model": Model(served.load, memory="5GiB"), "memory": "4GiB"},
        "wants 3 replicas and may use 2 devices": {"model": Model(served.load, replicas=3)},
        "wants 2 replicas and may use 1 devices": {"model": Model(served.load, replicas=2, devices=0)},
    }

    for why, options in never.items():
        with pytest.raises(PlacementError, match=why):
            director.submit(served.add, 1, 1, **options)  # type: ignore[call-overload]  # names from a dict

    assert (await director.submit(served.add, 1, 1, memory="5GiB")) == 2
    assert director.stats().rejected == 0


@pytest.mark.parametrize("require", ["all", "any"])
async def test_a_model_with_replicas_is_loaded_on_so_many_devices(make: Make, require: Any) -> None:
    one, two = await make("simulated:3"), await make("simulated:3")
    model = Model(served.load, replicas=2)

    await one.load(model, require)

    has_it = lambda: [device.models == ("load",) for device in two.stats().devices]  # noqa: E731
    await until(lambda: sum(has_it()) == 2 if require == "all" else any(has_it()))
    await two.load(model)
    await until(lambda: sum(has_it()) == 2)
    (other,) = (device for device, has in zip(one.devices, has_it(), strict=True) if not has)
    with pytest.raises(PlacementError, match="may not be loaded on any of the devices asked for"):
        await one.run(served.replica, model=model, devices=other)


async def test_memory_is_accounted_for_in_the_server(make: Make) -> None:
    director = await make(simulated_devices(1, memory=10 << 30), memory_limit="8GiB")

    one, another = Model(served.load, memory="6GiB"), Model(served.load_another, memory="6GiB")
    assert await director.run(served.replica, model=one)
    assert await director.run(served.replica, model=another)
    await until(lambda: director.stats().devices[0].models == ("load_another",))


async def test_a_job_that_has_not_begun_within_its_limit_never_runs(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    held = director.submit(served.hold, holder.path)
    await holder.begun()

    with pytest.raises(JobTimeout) as late:
        await director.run(served.add, 1, 1, start_within=0.02)

    assert late.value.phase == "queued"
    holder.let_go()
    await held


async def test_what_a_job_waits_for_is_explained_by_the_server(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    held = director.submit(served.hold, holder.path)
    await holder.begun()
    waiting = director.submit(served.add, 1, 1)
    await until(lambda: director.stats().queued == 1)

    explanation = await director.explain(waiting)

    assert explanation.job is waiting
    assert "slot" in [reason.kind for reason in explanation.reasons]
    holder.let_go()
    await asyncio.gather(held, waiting)


async def test_of_two_loads_of_pinned_models_one_is_an_error(make: Make) -> None:
    one, two = await make(simulated_devices(1, memory=4 << 30)), await make(simulated_devices(1, memory=4 << 30))
    first, second = (Model(load, memory="3GiB", pin=True) for load in (served.load, served.load_another))
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(one.load(first), two.load(second), return_exceptions=True)
    assert sorted(type(outcome) for outcome in outcomes if outcome is not None) == [PlacementError]
    with pytest.raises(PlacementError, match="pin=True"):
        await one.load(first if outcomes[0] is not None else second)


async def test_options_of_very_many_kinds_are_told_apart(make: Make) -> None:
    director = await make(slots=2)

    for _ in range(2):
        jobs = [director.submit(served.add, number, 1, priority=number) for number in range(700)]
        large = [director.submit(served.size, bytes(400_000 + n), priority=n, name=f"n{n}") for n in range(5)]
        assert await asyncio.gather(*jobs) == [*range(1, 701)]
        assert await asyncio.gather(*large) == [400_000 + n for n in range(5)]


async def test_all_jobs_of_a_batch_are_running_here_while_their_call_runs(
    make: Make, hold: Callable[[], Holder]
) -> None:
    director, holder, second = await make(), hold(), hold()
    function = director.function(served.hold_batch, max_batch_size=4)

    first = director.submit(served.hold, holder.path)
    await holder.begun()
    jobs = [function.submit(item) for item in (second.path, "", "", "")]
    holder.let_go()
    await second.begun()
    await until(lambda: all(job.state is JobState.RUNNING for job in jobs))
    second.let_go()

    assert (await asyncio.gather(first, *jobs))[1:] == [4, 4, 4, 4]
