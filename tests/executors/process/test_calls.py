"""The same API in a child: calls, arguments, results, and what a job may ask."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Recorder, outcome, until

from director import Device, Director, JobState, JobTimeout, Model, ProcessExecutor
from director._executors.process import encoding
from director._ipc.frames import INLINE
from director.events import JobProgressed, JobStarted, JobSucceeded
from executors.process import calls
from executors.process.leaks import open_files, wait_until

if TYPE_CHECKING:
    from pathlib import Path

GPU = Device(3, "GPU-5d1c2a9e-0000-1111-2222-333344445555", "NVIDIA H100", "cuda", 80 * 2**30)


async def test_a_call_runs_in_another_process_and_the_next_one_in_the_same(director: Director) -> None:
    first, second = await director.run(calls.process_id), await director.run(calls.process_id)
    assert first == second != os.getpid()


async def test_each_slot_has_a_child_of_its_own(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with Director("cpu:2", slots=2, executor="process") as director:
        jobs = [director.submit(calls.held, str(go)) for _ in range(4)]
        await until(lambda: all(job.progress for job in jobs))
        go.touch()
        await asyncio.gather(*jobs)
        ids = {await director.run(calls.process_id) for _ in range(16)}
    assert 2 <= len(ids) <= 4


async def test_arguments_and_results(director: Director) -> None:
    assert await director.run(calls.add, 1, 2) == 3
    assert await director.run(functools.partial(calls.add, c=10), 1, 2) == 13
    assert [x async for x in director.map(calls.echo, range(40))] == list(range(40))
    value: Any = {"a": [1, (2.5, None)], "b": b"x" * 1000, "text": "ü" * 600, "set": {1, 2}}
    assert await director.run(calls.echo, value) == value
    assert await director.run(calls.echo, None) is None
    assert await director.run(calls.echo) is None


async def test_every_length_gets_through(director: Director) -> None:
    around_a_frame = range(INLINE - 20, INLINE + 20, 3)
    for size in (0, 300, *around_a_frame, 4000, 4096, 5000, 70_000, 3_000_000):
        for value in (b"v" * size, "w" * size, bytearray(size)):
            assert await director.run(calls.echo, value) == value


async def test_a_function_by_decorator_or_options(director: Director) -> None:
    function = director.function(calls.add, priority=3, name="adding")
    assert await function(1, 2) == 3
    assert await director.run(calls.add, 2, 2) == 4  # by its own name again


async def test_a_function_whose_name_belongs_to_its_decorated_self(director: Director) -> None:
    assert await director.run(calls.wrapped, 4) == ("wrapped", 4)
    assert await director.run(calls.wrapped.__wrapped__, 4) == 4
    assert await director.run(functools.partial(calls.wrapped.__wrapped__, value=5)) == 5


async def test_methods_and_callable_objects(director: Director) -> None:
    assert await director.run(calls.Adder(7), 5) == 12
    assert await director.run(calls.Adder(8).add, 5) == 13


async def test_lambdas_and_local_functions_by_cloudpickle(director: Director) -> None:
    factor = 3

    def local(_: Device, value: int) -> int:
        return factor * value

    assert await director.run(local, 5) == 15
    factor = 4
    assert await director.run(local, 5) == 20  # as it is now
    assert await director.run(lambda _: os.getpid()) != os.getpid()


async def test_a_coroutine_function_is_refused(director: Director) -> None:
    with pytest.raises(TypeError, match="coroutine is a coroutine function"):
        director.submit(calls.coroutine)


async def test_a_generator_or_coroutine_as_a_result_is_refused(director: Director) -> None:
    for fn, what in [(calls.returns_generator, "a generator"), (calls.returns_coroutine, "a coroutine")]:
        error = await outcome(director.submit(fn))
        assert isinstance(error, TypeError)
        assert f"{fn.__name__} returned {what}" in str(error)


async def test_a_batch_is_one_call(director: Director) -> None:
    double = director.function(calls.double_all, max_batch_size=8)
    assert await asyncio.gather(*(double(n) for n in range(20))) == [2 * n for n in range(20)]
    odd = director.function(calls.half_broken, max_batch_size=8)
    results = await asyncio.gather(*(odd(n) for n in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, int, ValueError, int]


async def test_as_executor_calls_functions_as_they_are(director: Director) -> None:
    executor = director.as_executor()
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, calls.bare_sum, 1, 2, 3) == 6
    assert await loop.run_in_executor(executor, calls.process_id) != os.getpid()
    failed = await outcome(loop.run_in_executor(executor, calls.throw, None, KeyError("k")))
    assert repr(failed) == "KeyError('k')"


async def test_a_lease_holds_the_slot_here(director: Director) -> None:
    async with director.lease() as device:
        assert device == director.devices[0]
        waiting = director.submit(calls.echo, 1)
        await asyncio.sleep(0)
        assert waiting.state is JobState.QUEUED
    assert await waiting == 1
    with pytest.raises(TypeError, match='another process: use executor="thread"'):
        director.lease(model=Model(calls.load))


async def test_a_job_knows_itself_and_its_device(director: Director) -> None:
    await director.run(calls.echo)
    job = director.submit(calls.whereabouts, priority=4)
    seen = await job
    device = director.devices[0]
    assert seen["device"] == seen["current"] == device
    assert seen["job"] == (job.id, "whereabouts", 4, 1, JobState.RUNNING, device, False, False)
    assert seen["waited"] == pytest.approx(job.waited)
    assert seen["text"] == f"<Job {job.id} 'whereabouts' running on cpu:0>"


async def test_jobs_run_on_the_main_thread_of_their_process(director: Director) -> None:
    assert await director.run(calls.thread_name) == "MainThread"
    assert "is for jobs" in await director.run(calls.in_thread)


async def test_progress_arrives_in_order_and_before_the_result() -> None:
    recorder = Recorder()
    async with Director("cpu", executor="process", hooks=[recorder]) as director:
        job = director.submit(calls.say_progress, 50)
        assert await job == 50
        assert job.progress == {"step": 49}
    assert [event.progress["step"] for event in recorder.of(JobProgressed)] == list(range(50))
    kinds = recorder.kinds()
    assert kinds.index("JobStarted") < kinds.index("JobProgressed") < kinds.index("JobSucceeded")
    assert recorder.of(JobStarted)[0].job == recorder.of(JobSucceeded)[0].job == job.id


async def test_a_cancelled_call_learns_of_it_and_its_child_stays(director: Director) -> None:
    before = await director.run(calls.process_id)
    job = director.submit(calls.cooperative)
    await until(lambda: job.progress)
    job.cancel()
    assert isinstance(await outcome(job), asyncio.CancelledError)
    assert await director.run(calls.process_id) == before


async def test_a_call_whose_deadline_passes_learns_of_it_and_its_child_stays(director: Director) -> None:
    before = await director.run(calls.process_id)
    job = director.submit(calls.cooperative, deadline=0.2)
    assert isinstance(await outcome(job), JobTimeout)
    assert await director.run(calls.process_id) == before


async def test_a_batch_is_told_when_nobody_waits_for_any_of_it(director: Director) -> None:
    before = await director.run(calls.process_id)
    function = director.function(calls.cooperative_batch, max_batch_size=2)
    async with director.lease():
        jobs = [function.submit(n) for n in range(2)]
    await until(lambda: jobs[0].progress)
    jobs[0].cancel()
    assert not jobs[1].done()
    jobs[1].cancel()
    assert await director.run(calls.process_id) == before


async def test_a_job_cancelled_while_its_child_starts_never_runs(tmp_path: Path) -> None:
    path = tmp_path / "ran"
    async with Director("cpu", executor="process") as director:
        job = director.submit(calls.die_first, str(path))
        await until(lambda: job.state is JobState.RUNNING)
        job.cancel()
        assert await director.run(calls.echo, 1) == 1
    assert not path.exists()


async def test_a_gpu_is_the_only_one_that_its_child_sees() -> None:
    async with Director([GPU], executor="process") as director:
        assert await director.run(calls.environment, "CUDA_VISIBLE_DEVICES") == [GPU.uuid]
        assert await director.run(calls.text_of) == "cuda:0"
        seen = (await director.run(calls.whereabouts))["current"]
        assert (seen.uuid, seen.index, seen.name) == (GPU.uuid, 0, GPU.name)
        assert director.devices[0].index == 3


async def test_other_devices_leave_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    async with Director("cpu", executor="process") as director:
        assert await director.run(calls.environment, "CUDA_VISIBLE_DEVICES") == ["1,2"]


async def test_a_child_imports_little(director: Director) -> None:
    heavy = ("numpy", "multiprocessing", "pytest", "pynvml", "cloudpickle", "director.events", "director.cli", "uuid")
    traced = {"multiprocessing", "uuid"} if "COVERAGE_PROCESS_CONFIG" in os.environ else set()  # coverage's own
    assert set(await director.run(calls.modules, *heavy)) <= traced


async def test_children_start_with_the_first_job_and_end_with_the_director() -> None:
    from executors.process.leaks import children

    before = children()
    async with Director("cpu:3", executor="process") as director:
        assert children() == before
        await director.run(calls.echo)
        assert len(children() - before) == 1
    wait_until(lambda: children() == before)


async def test_a_closed_director_holds_no_descriptors() -> None:
    gc.collect()
    before = open_files()
    director = Director("cpu:3", executor="process")
    async with director:
        await asyncio.gather(*(director.submit(calls.nap, 0.01) for _ in range(6)))
    await asyncio.sleep(0)
    gc.collect()
    assert open_files() == before
    assert director.stats().succeeded == 6


async def test_a_director_can_be_opened_again() -> None:
    director = Director("cpu", executor="process")
    ids = []
    for _ in range(2):
        async with director:
            ids.append(await director.run(calls.process_id))
    assert len(set(ids)) == 2


async def test_a_child_is_replaced_after_so_many_jobs() -> None:
    async with Director("cpu", executor=ProcessExecutor(max_jobs_per_worker=3)) as director:
        ids = [await director.run(calls.process_id) for _ in range(7)]
    assert [ids.count(process) for process in dict.fromkeys(ids)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({"max_jobs_per_worker": 0}, ValueError),
        ({"max_jobs_per_worker": 1.5}, TypeError),
        ({"max_jobs_per_worker": True}, TypeError),
        ({"grace": -1}, ValueError),
        ({"grace": float("nan")}, ValueError),
        ({"grace": "1"}, TypeError),
    ],
)
def test_wrong_terms_are_refused_at_once(terms: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(terms))):
        ProcessExecutor(**terms)


@pytest.mark.parametrize("are_many", [False, True])
async def test_more_names_than_a_child_is_told_of(are_many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_MOST_NAMED", 2)
    async with Director("cpu", executor="process") as director:
        jobs = []
        for number in range(40):
            jobs.append(director.submit(calls.echo, number, name=f"job {number}"))
            if not are_many:
                await jobs[-1]
        assert await asyncio.gather(*jobs) == list(range(40))
        assert (await director.run(calls.whereabouts, name="another"))["job"][1] == "another"
