"""Children that die, hang or stop answering: a clear error, or none where nothing was lost, and the slot serves on."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from harness.gates import PATIENCE, Recorder, outcome, until

from director import Device, DeviceLost, Director, JobAborted, JobState, JobTimeout, Model, ProcessExecutor, WorkerDied
from director._executors.process import encoding as call
from director.events import JobRetried, ModelFailed, ModelLoaded, ModelUnloaded
from director.testing import TestClock
from executors.process import calls
from executors.process.leaks import is_alive, stop, wait_until

if TYPE_CHECKING:
    from pathlib import Path

HASTY = ProcessExecutor(grace=0.1)


async def died(director: Director, fn: Any, *args: Any) -> WorkerDied:
    error = await outcome(director.submit(fn, *args))
    assert isinstance(error, WorkerDied), repr(error)
    return error


DEATHS = [
    (calls.die, (3,), 3, "exit code 3"),
    (calls.die, (0,), 0, "exit code 0"),
    (calls.kill_self, (signal.SIGKILL,), -9, "SIGKILL, as the system does when memory runs out"),
    (calls.segfault, (), -11, "SIGSEGV, a fault in native code"),
    (calls.kill_self, (signal.SIGABRT,), -6, "SIGABRT"),
    (calls.kill_self, (signal.SIGUSR1,), -10, "SIGUSR1"),
]


async def test_a_child_that_dies_in_a_call(director: Director) -> None:
    before = await director.run(calls.process_id)
    for fn, args, code, words in DEATHS:
        error = await died(director, fn, *args)
        assert error.exitcode == code
        assert error.device == director.devices[0]
        assert words in str(error)
        assert "cpu:0" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        after = await director.run(calls.process_id)  # and it is not three in a row, which would close the device
        assert after not in (before, os.getpid())
        before = after
    assert director.stats().failed == len(DEATHS)


async def test_only_the_job_that_ran_is_lost(director: Director) -> None:
    jobs = [director.submit(calls.echo, n) for n in range(5)]
    lost = director.submit(calls.die, 1)
    later = [director.submit(calls.echo, n) for n in range(5)]
    assert [await job for job in (*jobs, *later)] == [*range(5), *range(5)]
    assert isinstance(await outcome(lost), WorkerDied)


async def test_a_lost_job_is_tried_again(tmp_path: Path) -> None:
    recorder = Recorder()
    async with Director("cpu:2", executor="process", hooks=[recorder]) as director:
        job = director.submit(calls.die_first, str(tmp_path / "once"), retries=1)
        assert await job != os.getpid()
        assert job.attempts == 2
    (retried,) = recorder.of(JobRetried)
    assert isinstance(retried.error, WorkerDied)


async def test_a_child_that_died_idle_is_replaced_without_a_word(director: Director) -> None:
    before = await director.run(calls.process_id)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not is_alive(before))
    assert await director.run(calls.process_id) != before
    assert director.stats().failed == 0


async def test_a_large_array_for_a_child_that_died_idle_goes_to_the_next(director: Director) -> None:
    before = await director.run(calls.process_id)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not is_alive(before))
    array = np.arange(300_000)
    assert (await director.run(calls.echo, array) == array).all()
    assert await director.run(calls.process_id) != before


async def test_death_is_noticed_though_a_copy_of_the_child_lives_on(director: Director) -> None:
    """A process that was forked from the child holds the same pipe, unless it lets go of it."""
    before = await director.run(calls.process_id)
    copy = await director.run(calls.fork_and_stay)
    try:
        job = director.submit(calls.cooperative)
        await until(lambda: job.progress)
        os.kill(before, signal.SIGKILL)
        assert isinstance(await asyncio.wait_for(outcome(job), PATIENCE), WorkerDied)
    finally:
        os.kill(copy, signal.SIGKILL)


async def test_a_child_that_closes_its_files_is_ended(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director._executors.process.child_process._REAPING", 0.1)
    error = await died(director, calls.close_everything)
    assert error.exitcode == -signal.SIGKILL


# ---- time is up


async def test_a_call_that_asks_leaves_at_its_timeout_and_its_child_stays() -> None:
    async with Director("cpu", executor=ProcessExecutor(grace=10)) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.cooperative, timeout=0.2)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert error.phase == "running"
        assert await director.run(calls.process_id) == before


async def test_a_call_that_does_not_ask_is_told_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "finally"
    async with Director("cpu", executor=HASTY) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.stuck, str(path), timeout=0.2)
        assert isinstance(await outcome(job), JobTimeout)
        assert await director.run(calls.process_id) != before
        assert path.read_text() == "cleaned up"
        assert not is_alive(before)


async def test_a_call_that_does_not_listen_is_killed() -> None:
    async with Director("cpu", executor=HASTY) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.stubborn, timeout=0.2)
        assert isinstance(await outcome(job), JobTimeout)
        assert await director.run(calls.process_id) != before
        assert not is_alive(before)


async def test_a_deadline_kills_nobody(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with Director("cpu", executor=ProcessExecutor(grace=0)) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.held, str(go), deadline=0.2)
        assert isinstance(await outcome(job), JobTimeout)
        next_one = director.submit(calls.process_id)
        await asyncio.sleep(0.1)
        go.touch()
        assert await next_one == before


@pytest.mark.serial
async def test_a_call_past_its_deadline_is_killed_when_its_timeout_has_passed_too() -> None:
    async with Director("cpu", executor=HASTY) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.stuck, deadline=0.1, timeout=1.5)
        began = time.monotonic()
        assert isinstance(await outcome(job), JobTimeout)
        assert time.monotonic() - began < 1.4
        assert await director.run(calls.process_id) != before
        assert time.monotonic() - began > 1.6


async def test_a_cancelled_call_is_not_killed(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with Director("cpu", executor=ProcessExecutor(grace=0)) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.held, str(go), timeout=60)
        await until(lambda: job.progress)
        job.cancel()
        next_one = director.submit(calls.process_id)
        await asyncio.sleep(0.1)
        go.touch()
        assert await next_one == before


async def test_one_that_goes_on_is_killed_when_its_timeout_has_passed_whoever_has_left() -> None:
    async with Director("cpu", executor=HASTY) as director:
        before = await director.run(calls.process_id)
        job = director.submit(calls.stuck, timeout=1.0)
        await until(lambda: job.progress)
        assert job.cancel()
        assert await director.run(calls.process_id) != before
        assert not is_alive(before)


# ---- silence


async def test_a_child_that_has_stopped_takes_no_call_and_is_replaced(
    director: Director, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "_SILENCE", 0.2)
    before = await director.run(calls.process_id)
    stop(before)
    assert await director.run(calls.process_id) != before
    assert not is_alive(before)
    assert director.stats().failed == 0, "it had not begun, so nothing was lost"


async def test_a_long_call_is_not_silence(director: Director, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "_SILENCE", 0.05)
    go = tmp_path / "go"
    before = await director.run(calls.process_id)
    job = director.submit(calls.held, str(go), 5)
    await until(lambda: job.progress)
    await asyncio.sleep(0.2)
    go.touch()
    assert await job == 5
    assert await director.run(calls.process_id) == before


async def test_a_child_that_stops_within_a_call_is_ended_by_the_timeout() -> None:
    async with Director("cpu", executor=HASTY) as director:
        job = director.submit(calls.kill_self, signal.SIGSTOP, timeout=0.4)
        assert isinstance(await outcome(job), JobTimeout)
        assert await director.run(calls.echo, 1) == 1


async def test_children_that_can_not_start_fail_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    async with Director("cpu", executor="process") as director:
        error = await outcome(director.submit(calls.echo))
        assert isinstance(error, WorkerDied)
        assert error.exitcode == 1
        monkeypatch.undo()
        assert await director.run(calls.echo, 1) == 1


async def test_jobs_wait_while_no_child_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TestClock()
    monkeypatch.setattr("sys.executable", "/no/such/interpreter")
    async with Director("cpu:2", executor="process", clock=clock) as director:
        first, second = director.submit(calls.echo, 1), director.submit(calls.echo, 2, devices=1)
        await until(lambda: not director.healthy)
        assert "/no/such/interpreter" in str(director.stats().devices[0].reason)
        assert (first.attempts, second.attempts, director.stats().queued) == (0, 0, 2)
        clock.advance(31.0)
        for job in (first, second):
            error = await outcome(job)
            assert isinstance(error, DeviceLost)
            assert "/no/such/interpreter" in str(error)
        monkeypatch.undo()
        third = director.submit(calls.echo, 3)
        clock.advance(10.0)
        assert await third == 3


# ---- models


async def test_each_child_has_its_own_replica_and_the_parent_knows() -> None:
    recorder = Recorder()
    model = Model(calls.load, name="net")
    async with Director("cpu", slots=2, executor="process", hooks=[recorder]) as director:
        await director.load(model)
        assert director.stats().devices[0].models == ("net",)
        async with director.lease(), director.lease():
            jobs = [director.submit(calls.weigh, model=model) for _ in range(2)]
        ids = {await job for job in jobs}
        assert len(ids) <= 2
        assert os.getpid() not in ids
    assert len(recorder.of(ModelLoaded)) == len(recorder.of(ModelUnloaded)) == 2
    assert all(event.seconds >= 0 for event in recorder.of(ModelLoaded))


async def test_the_death_of_a_child_takes_its_replica(tmp_path: Path) -> None:
    recorder = Recorder()
    model = Model(calls.load, name="net")
    async with Director("cpu", executor="process", hooks=[recorder]) as director:
        first = await director.run(calls.weigh, model=model)
        assert director.stats().devices[0].models == ("net",)
        await died(director, calls.die, 1)
        assert director.stats().devices[0].models == ()
        assert await director.run(calls.weigh, model=model) != first
    assert recorder.kinds().count("ModelLoaded") == recorder.kinds().count("ModelUnloaded") == 2


async def test_models_are_unloaded_in_the_child_that_loaded_them(tmp_path: Path) -> None:
    path = tmp_path / "word"
    async with Director("cpu", executor="process") as director:
        await director.load(Model(calls.load, unload=calls.Unloader(str(path))))
    assert path.read_text() == "unloaded"


async def test_a_loader_that_fails_once(tmp_path: Path) -> None:
    recorder = Recorder()
    model = Model(calls.FlakyLoader(str(tmp_path / "once")))
    async with Director("cpu", executor="process", hooks=[recorder]) as director:
        error = await outcome(director.submit(calls.weigh, model=model))
        assert isinstance(error, calls.Rich)
        assert "in __call__" in error.__notes__[0]
        assert await director.run(calls.weigh, model=model)
    assert len(recorder.of(ModelFailed)) == len(recorder.of(ModelLoaded)) == 1


async def test_a_loader_that_always_fails(director: Director) -> None:
    model = Model(calls.fail_to_load)
    before = await director.run(calls.process_id)
    for _ in range(2):
        assert isinstance(await outcome(director.submit(calls.weigh, model=model)), calls.Rich)
        with pytest.raises(calls.Rich, match="no such weights"):
            await director.load(model)
    assert await director.run(calls.process_id) == before


async def test_a_loader_that_hangs_is_ended_by_the_close() -> None:
    model = Model(calls.load_for_ever)
    async with Director("cpu:2", executor=HASTY) as director:
        assert isinstance(await outcome(director.submit(calls.weigh, model=model, deadline=0.4)), JobTimeout)
        assert await director.run(calls.echo, 1) == 1  # the other device
        await director.close(0.0, 0.0)


async def test_a_loader_that_can_not_be_sent(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    model: Model[Any] = Model(lambda device: device)
    error = await outcome(director.submit(calls.weigh, model=model))
    assert isinstance(error, pickle.PicklingError)
    assert await director.run(calls.echo, 1) == 1


async def test_an_unload_that_fails_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("cpu", executor="process") as director:
        await director.load(Model(calls.load, unload=calls.fail_to_unload, name="net"))
    (record,) = [record for record in caplog.records if "unloading" in record.message]
    assert record.message == "unloading net from cpu:0 failed"
    assert "ValueError: it won't go" in (record.exc_text or "")


# ---- the end of a Director


async def test_a_call_that_runs_at_the_close_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    director = Director("cpu", executor=HASTY)
    await director.start()
    job = director.submit(calls.stubborn)
    await until(lambda: job.progress)
    process = director.stats()
    began = time.monotonic()
    await director.close(timeout=0)
    assert time.monotonic() - began < PATIENCE
    assert isinstance(job.exception(), JobAborted)
    assert process.running == 1
    assert "its process is ended" in caplog.text


async def test_a_loop_that_ends_takes_its_children_along() -> None:
    def run() -> list[int]:
        ids: list[int] = []

        async def main() -> None:
            director = Director("cpu", executor="process")
            await director.start()
            ids.append(await director.run(calls.process_id))

        with pytest.warns(ResourceWarning, match="never closed"):
            asyncio.run(main())
        return ids

    (process,) = await asyncio.to_thread(run)
    wait_until(lambda: not is_alive(process))


async def test_state_of_a_job_whose_child_died(director: Director) -> None:
    job = director.submit(calls.die, 1)
    await outcome(job)
    assert job.state is JobState.FAILED
    assert isinstance(job.device, Device)
    assert job.ran is not None
