"""`Job`: a handle to await from anywhere in the loop, that knows its state, its device and its times."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, ThreadClock, outcome, turns, until

from director import Director, Job, JobState, current_job, report

if TYPE_CHECKING:
    from director.testing import TestClock


def answer(_device: Any) -> int:
    return 42


async def test_it_can_be_awaited_many_times_from_many_tasks(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        await gate.begun()
        tasks = [asyncio.create_task(outcome(job)) for _ in range(5)]
        await turns()
        gate.open()
        assert await asyncio.gather(*tasks) == [42] * 5
        assert [await job, await job] == [42, 42]
    assert await job == 42  # also after the close


async def test_cancelling_a_task_that_awaits_it_cancels_it_for_all_that_do(gate: Gate) -> None:
    async def wait_for(job: Job[int]) -> int:
        return await job

    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        await gate.begun()
        leaves, stays = asyncio.create_task(wait_for(job)), asyncio.create_task(wait_for(job))
        await turns()
        leaves.cancel()
        await asyncio.wait([leaves])
        assert leaves.cancelled()
        assert job.state is JobState.CANCELLED
        await asyncio.wait([stays])
        assert stays.cancelled()
        gate.open()


async def test_a_shielded_job_goes_on_for_the_others(gate: Gate) -> None:
    async def wait_for(job: Job[int]) -> int:
        return await asyncio.shield(job)

    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        await gate.begun()
        leaves, stays = asyncio.create_task(wait_for(job)), asyncio.create_task(wait_for(job))
        await turns()
        leaves.cancel()
        await asyncio.wait([leaves])
        assert leaves.cancelled()
        assert job.state is JobState.RUNNING
        gate.open()
        assert await stays == 42


async def test_a_job_that_is_dropped_runs_on(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate, 42)
        gate.open()
        await director.drain()
        assert director.stats().succeeded == 1


async def test_its_facts_over_a_life(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        director.submit(gate, "before")
        await gate.begun()
        job = director.submit(gate, "it", priority=3, name="detect")
        assert (job.state, job.device, job.waited, job.ran, job.attempts) == (JobState.QUEUED, None, None, None, 0)
        clock.advance(2)
        assert job.waited is None
        gate.let(1)
        await gate.begun()
        assert (job.state, job.device, job.waited) == (JobState.RUNNING, director.devices[0], 2)
        assert (job.ran, job.attempts, job.done()) == (None, 1, False)
        clock.advance(5)
        gate.let(1)
        assert await job == "it"
        assert (job.state, job.device, job.waited, job.ran) == (JobState.SUCCEEDED, director.devices[0], 2, 5)
        assert (job.id, job.priority, job.name, job.attempts, job.progress) == (2, 3, "detect", 1, None)


async def test_the_facts_of_a_job_that_never_ran(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        job = director.submit(gate, "never")
        clock.advance(3)
        assert job.cancel()
        clock.advance(3)
        assert (job.state, job.device, job.waited, job.ran) == (JobState.CANCELLED, None, 3, None)
        assert job.attempts == 0
        gate.open()
    assert "never" not in gate.calls


async def test_ran_of_a_cancelled_job_is_known_when_its_call_has_ended(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(gate)
        await gate.begun()
        clock.advance(1)
        assert job.cancel()
        assert (job.state, job.ran, job.device) == (JobState.CANCELLED, None, director.devices[0])
        clock.advance(4)
        gate.open()
        await until(lambda: job.ran is not None)
        assert job.ran == 5


async def test_ids_count_from_one_in_order_of_submission() -> None:
    async with Director("simulated:2") as director:
        jobs = [director.submit(answer, priority=i) for i in range(5)]
        assert [job.id for job in jobs] == [1, 2, 3, 4, 5]
        await asyncio.gather(*jobs)


async def test_its_name_is_the_option_or_the_functions() -> None:
    class Detector:
        def __call__(self, device: Any) -> str:
            return str(device)

    async with Director("simulated:1") as director:
        jobs = [director.submit(answer), director.submit(answer, name="detect"), director.submit(Detector())]
        assert [job.name for job in jobs] == ["answer", "detect", "Detector"]
        await asyncio.gather(*jobs)
        assert [job.name for job in jobs] == ["answer", "detect", "Detector"]


async def test_the_name_of_a_partial_is_that_of_its_function() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(functools.partial(answer))
        await job
        assert job.name == "answer"


async def test_its_repr_tells_number_name_state_and_device(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        running, waiting = director.submit(gate), director.submit(answer)
        await gate.begun()
        assert repr(running) == "<Job 1 'gate' running on simulated:0>"
        assert repr(waiting) == "<Job 2 'answer' queued>"
        gate.open()
        await waiting
        assert repr(waiting) == "<Job 2 'answer' succeeded on simulated:0>"


async def test_result_and_exception_before_the_end_and_after(gate: Gate) -> None:
    def fail(_device: Any) -> None:
        raise KeyError("no")

    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        with pytest.raises(asyncio.InvalidStateError):
            job.result()
        with pytest.raises(asyncio.InvalidStateError):
            job.exception()
        assert not job.done()
        gate.open()
        await job
        assert (job.result(), job.exception(), job.done(), job.cancelled()) == (42, None, True, False)
        failed = director.submit(fail)
        await asyncio.wait([failed])
        assert isinstance(failed.exception(), KeyError)
        with pytest.raises(KeyError):
            failed.result()
        assert (failed.state, failed.done(), failed.cancelled()) == (JobState.FAILED, True, False)


async def test_cancel_of_a_waiting_job_and_what_its_awaiters_get(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        job = director.submit(gate, "never")
        waiter = asyncio.create_task(outcome(job))
        await turns()
        assert job.cancel()
        assert (job.state, job.done(), job.cancelled()) == (JobState.CANCELLED, True, True)
        assert isinstance(await waiter, asyncio.CancelledError)
        with pytest.raises(asyncio.CancelledError):
            job.result()
        with pytest.raises(asyncio.CancelledError):
            job.exception()
        assert not job.cancel()  # it is over already
        gate.open()
    assert gate.items[1:] == []


async def test_cancel_of_a_running_job_frees_the_caller_and_keeps_the_slot(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate, "first")
        await gate.begun()
        waiter = asyncio.create_task(outcome(job))
        await turns()
        assert job.cancel()
        assert isinstance(await waiter, asyncio.CancelledError)
        following = director.submit(gate, "second")
        await turns()
        assert (following.state, director.stats().devices[0].busy, gate.finished) == (JobState.QUEUED, 1, 0)
        gate.open()
        assert await following == "second"
        assert job.state is JobState.CANCELLED  # the result that came later is dropped


async def test_cancel_of_a_job_that_is_over_does_nothing() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(answer)
        await job
        assert not job.cancel()
        assert (job.state, job.result()) == (JobState.SUCCEEDED, 42)


async def test_cancel_in_the_moment_between_being_taken_and_being_called(gate: Gate) -> None:
    clock = ThreadClock()
    async with Director("simulated:1", clock=clock) as director:
        await director.run(answer)  # there is a worker now
        clock.advance(1)
        clock.hold()
        job = director.submit(gate, "never")
        await until(clock.asked.is_set)  # the worker has it and looks at the clock
        assert job.cancel()
        clock.release()
        assert await director.run(answer) == 42
        assert (job.state, gate.calls) == (JobState.CANCELLED, [])


async def test_the_message_of_cancel_reaches_the_awaiter(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate)
        job = director.submit(answer)
        job.cancel("not needed any more")
        with pytest.raises(asyncio.CancelledError, match="not needed any more"):
            await job
        gate.open()


async def test_cancel_belongs_to_the_loop_and_says_so(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(job.cancel)
        assert not job.done()
        gate.open()
        await job


def test_a_loop_that_is_not_running_can_cancel_a_task_that_awaits_a_job() -> None:
    async def begin() -> tuple[Director, asyncio.Task[int]]:
        director = Director("simulated:1")
        await director.start()
        task = asyncio.create_task(director.run(answer))
        await asyncio.sleep(0)  # it awaits its job now
        return director, task

    with asyncio.Runner() as runner:
        director, task = runner.run(begin())
        try:
            task.cancel()  # as `asyncio.run` does with every task that is left
        finally:
            runner.run(asyncio.wait([task]))
            runner.run(director.close())
    assert task.cancelled()


async def test_callbacks_are_called_on_the_loop_once_it_is_over(gate: Gate) -> None:
    seen: list[Any] = []
    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        job.add_done_callback(lambda it: seen.append((it, it.result(), asyncio.get_running_loop())))
        job.add_done_callback(seen.append)
        assert job.remove_done_callback(seen.append) == 1
        gate.open()
        await job
        await turns()
        assert seen == [(job, 42, asyncio.get_running_loop())]
        job.add_done_callback(seen.append)  # after the end: soon
        await turns()
        assert seen[1:] == [job]


async def test_it_works_with_gather_wait_and_as_completed(gate: Gate) -> None:
    async with Director("simulated:3") as director:
        jobs = [director.submit(gate, n) for n in range(3)]
        done, pending = await asyncio.wait(jobs, timeout=0)
        assert (done, pending) == (set(), set(jobs))
        gate.let(1)
        done, pending = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        gate.open()
        assert await asyncio.gather(*jobs) == [0, 1, 2]
        assert sorted([await each for each in asyncio.as_completed(jobs)]) == [0, 1, 2]
        assert asyncio.isfuture(jobs[0])
        assert asyncio.ensure_future(jobs[0]) is jobs[0]


async def test_it_works_with_wait_for_and_shield(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(job), 0.001)
        assert not job.done()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await job
        assert job.state is JobState.CANCELLED
        gate.open()
        assert await asyncio.wait_for(director.submit(gate, 42), PATIENCE) == 42


async def test_run_cancels_its_job_when_the_caller_leaves(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        running = asyncio.create_task(director.run(gate, "running"))
        await gate.begun()
        waiting = asyncio.create_task(director.run(gate, "waiting"))
        await turns()
        waiting.cancel()
        running.cancel()
        await asyncio.wait([waiting, running])
        assert waiting.cancelled()
        assert running.cancelled()
        stats = director.stats()
        assert (stats.queued, stats.running, stats.cancelled, stats.devices[0].busy) == (0, 0, 2, 1)
        gate.open()
    assert gate.items == ["running"]


async def test_nobody_else_can_end_it() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(answer)
        with pytest.raises(RuntimeError, match="Director"):
            job.set_result(41)
        with pytest.raises(RuntimeError, match="Director"):
            job.set_exception(ValueError())
        assert await job == 42


async def test_progress_is_what_was_last_reported(gate: Gate) -> None:
    def work(device: Any) -> None:
        report({"done": 1})
        assert current_job().progress == {"done": 1}
        report("half")
        gate(device)

    async with Director("simulated:1") as director:
        job = director.submit(work)
        assert job.progress is None
        await gate.begun()
        assert job.progress == "half"
        gate.open()
        await job
        assert job.progress == "half"


async def test_another_loop_can_not_await_it(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate)

        async def elsewhere() -> None:
            await job

        def run_elsewhere() -> None:
            with pytest.raises(RuntimeError, match="loop"):
                asyncio.run(elsewhere())

        await asyncio.to_thread(run_elsewhere)
        gate.open()
        await job
