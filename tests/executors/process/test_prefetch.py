"""Calls that children have ahead of their turn: in order, each once, taken back when they are better off elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from harness.gates import PATIENCE, outcome, until

from director import Director, DirectorClosed, JobState, Model, ProcessExecutor, WorkerDied
from director._executors.process.child_process import ChildProcess
from director._executors.process.encoding import CallEncoder, CallMessage, ProcessCall
from director._executors.remote import prefetch_depth as depths
from director._executors.remote.calls import CallState
from director._ipc.by_name import known_number
from director._ipc.frames import RequestKind
from director._ipc.protocol import NO_FACTS, UNNUMBERED
from director._jobs.job import fields
from executors.process import calls
from executors.process.leaks import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from director import Job


@pytest.fixture
def far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside a loop that holds the GIL for long."""
    monkeypatch.setattr(depths, "_SHORTEST", 0.05)
    monkeypatch.setattr(depths, "_RETURN_AFTER", 1000.0)


def _knows(runner: Any, fn: Any) -> bool:
    return bool(runner._queue.depth.mean and runner._child and known_number(fn) in runner._child.known)


@asynccontextmanager
async def opened(director: Director) -> AsyncIterator[Director]:
    """With children that know how long a call takes, and what is called: others are not sent ahead."""
    async with director:
        for fn, args in ((calls.note, (os.devnull, "")), (calls.nap, (0.005,))):
            while not all(_knows(slot.runner, fn) for slot in director._runtime.scheduler.slots):  # type: ignore[union-attr]
                await asyncio.gather(*(director.submit(fn, *args) for _ in range(8 * len(director.devices))))
        yield director


@pytest.fixture
async def two(far_ahead: None) -> AsyncIterator[Director]:
    """Two slots."""
    async with opened(Director("cpu:2", executor="process", max_queue=None)) as director:
        yield director


@pytest.fixture
async def one(far_ahead: None) -> AsyncIterator[Director]:
    """One slot."""
    async with opened(Director("cpu", executor="process", max_queue=None)) as director:
        yield director


def ahead(director: Director) -> list[list[Job[Any]]]:
    """What each slot holds before its turn."""
    assert director._runtime is not None
    return [list(slot.prefetched) for slot in director._runtime.scheduler.slots]


async def hold_all(director: Director, go: Path, behind: int = 20) -> tuple[list[Job[Any]], list[Job[Any]]]:
    """Every slot in a call that lasts until `go` (with its number) is there, and short calls ahead of their turn."""
    slots = len(ahead(director))
    holding = [director.submit(calls.held_talking, f"{go}{n}") for n in range(slots)]
    await until(lambda: all(job.progress for job in holding))
    short = [director.submit(calls.note, str(go), str(n)) for n in range(behind)]
    # Whatever a child says wakes the thread that fills it.
    await until(lambda: all(len(jobs) >= 2 for jobs in ahead(director)))
    return holding, short


async def test_many_short_calls_run_once_and_in_order(one: Director, tmp_path: Path) -> None:
    path, before = tmp_path / "order", one.stats().succeeded
    jobs = [one.submit(calls.note, str(path), str(n)) for n in range(300)]
    most = 0
    while not jobs[-1].done():
        most = max(most, len(ahead(one)[0]))
        await asyncio.sleep(0)
    assert path.read_text().split() == [str(n) for n in range(300)]
    assert most > 1
    assert one.stats().succeeded == before + 300


async def test_what_is_ahead_waits_as_far_as_anybody_can_see(one: Director, tmp_path: Path) -> None:
    (holding,), short = await hold_all(one, tmp_path / "go")
    stats = one.stats()
    assert (stats.running, stats.queued) == (1, 20)
    assert holding.attempts == 1
    assert all(job.device is None and job.waited is None and job.attempts == 0 for job in short)
    (tmp_path / "go0").touch()
    await asyncio.gather(*short)
    assert all(job.waited for job in short)


async def test_run_times_are_the_child_s_own(one: Director) -> None:
    """Answers that wait for the GIL come in handfuls; each call has taken its own time all the same."""
    jobs = [one.submit(calls.nap, 0.005) for _ in range(30)]
    until_ = time.monotonic() + 0.2
    while time.monotonic() < until_:  # the loop computes, and holds the GIL
        sum(range(100))
    await asyncio.gather(*jobs)
    assert min(job.ran or 0.0 for job in jobs) >= 0.005
    times = [(fields(job).started_at or 0.0, fields(job).finished_at or 0.0) for job in jobs]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))


async def test_a_lease_s_time_is_not_that_of_the_call_before(one: Director) -> None:
    await one.run(calls.nap, 0.005)
    before = one.stats().devices[0].busy_seconds
    async with one.lease():
        await asyncio.sleep(0.02)
    await until(lambda: one.stats().devices[0].busy == 0)
    assert one.stats().devices[0].busy_seconds - before >= 0.02


async def test_what_is_ahead_goes_to_a_slot_that_is_free_first(two: Director, tmp_path: Path) -> None:
    holding, short = await hold_all(two, tmp_path / "go")
    (tmp_path / "go0").touch()
    ids = await asyncio.wait_for(asyncio.gather(*short), PATIENCE)
    assert len(set(ids)) == 1, "all by the slot that was free"
    assert not holding[1].done()
    assert (tmp_path / "go").read_text().split() != []
    assert sorted(map(int, (tmp_path / "go").read_text().split())) == list(range(20)), "each once"
    (tmp_path / "go1").touch()


async def test_what_is_behind_a_long_call_goes_back(
    two: Director, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, short = await hold_all(two, tmp_path / "go")
    monkeypatch.setattr(depths, "_RETURN_AFTER", 2.0)  # the calls that hold the slots talk, so it is looked at again
    await until(lambda: not any(ahead(two)))
    assert {job.state for job in short} == {JobState.QUEUED}
    for n in range(2):
        (tmp_path / f"go{n}").touch()
    await asyncio.gather(*short)
    assert sorted(map(int, (tmp_path / "go").read_text().split())) == list(range(20))


async def test_a_job_that_is_cancelled_ahead_never_runs(one: Director, tmp_path: Path) -> None:
    _, short = await hold_all(one, tmp_path / "go")
    cancelled = ahead(one)[0][1::2]
    assert cancelled
    for job in cancelled:
        assert job.cancel()
    (tmp_path / "go0").touch()
    left = [job for job in short if job not in cancelled]
    await asyncio.gather(*left)
    ran = (tmp_path / "go").read_text().split()
    assert ran == [str(n) for n, job in enumerate(short) if job not in cancelled]
    assert one.stats().cancelled == len(cancelled)


async def test_what_was_cancelled_ahead_is_nothing_to_the_calls_after_it(one: Director, tmp_path: Path) -> None:
    _, short = await hold_all(one, tmp_path / "go")
    for job in short:
        job.cancel()
    (tmp_path / "go0").touch()
    last = one.submit(calls.held_talking, str(tmp_path / "never"), timeout=30)  # one with a timeout is not sent ahead
    await until(lambda: last.progress)
    os.kill(one._runtime.scheduler.slots[0].runner._child.pid, signal.SIGKILL)  # type: ignore[union-attr, attr-defined]
    assert isinstance(await outcome(last), WorkerDied)
    assert not one._runtime.scheduler.slots[0].runner._queue  # type: ignore[union-attr, attr-defined]


async def test_one_that_is_cancelled_ahead_can_not_come_back(one: Director, tmp_path: Path) -> None:
    """Its slot may be about to give it back: who moves it must hold the lock."""
    await hold_all(one, tmp_path / "go")
    assert one._runtime is not None
    [slot], job = one._runtime.scheduler.slots, ahead(one)[0][0]
    with one._runtime.scheduler._lock:
        moved = asyncio.get_running_loop().run_in_executor(None, one._runtime.scheduler.remove, job, JobState.CANCELLED)
        await asyncio.sleep(0.01)
        assert job.state is JobState.RUNNING
    assert await moved
    one._runtime.scheduler.return_prefetched(slot, list(slot.prefetched))
    assert job.state is JobState.CANCELLED
    assert job.location is slot
    (tmp_path / "go0").touch()


async def test_all_but_the_current_call_is_taken_back(one: Director) -> None:
    """A child that is stopped has received none of them; the current one stays with it."""
    await one.run(calls.nap, 0.001)
    child = one._runtime.scheduler.slots[0].runner._child  # type: ignore[union-attr, attr-defined]
    stop(child.pid)
    message = CallMessage(RequestKind.CALL, UNNUMBERED, UNNUMBERED, NO_FACTS, b"", None)
    sent = [ProcessCall([], None, ()) for _ in range(5)]
    for call in sent:
        child.send(call, message)
    assert all(child.is_waiting(call) for call in sent)
    assert child.take_back(sent[2]) == [*sent[:2], *sent[3:]]
    assert [call.state for call in sent] == [CallState.QUEUED] * 2 + [CallState.SENT] + [CallState.QUEUED] * 2
    assert child.is_waiting(sent[2])
    assert sent[2].number == 1 + sent[4].number, "it was sent again"
    later = ProcessCall([], None, ())
    child.send(later, message)
    assert later.number > sent[2].number
    assert child.take_back() == [sent[2], later]
    os.kill(child.pid, signal.SIGKILL)


async def test_a_child_that_dies_loses_only_the_call_that_ran(two: Director, tmp_path: Path) -> None:
    holding, short = await hold_all(two, tmp_path / "go")
    process = two._runtime.scheduler.slots[0].runner._child.pid  # type: ignore[union-attr, attr-defined]
    os.kill(process, signal.SIGKILL)
    lost = [job for job in holding if job.device == two.devices[0]]
    assert isinstance(await outcome(lost[0]), WorkerDied)
    (tmp_path / "go0").touch()
    (tmp_path / "go1").touch()
    await asyncio.gather(*short)
    assert sorted(map(int, (tmp_path / "go").read_text().split())) == list(range(20))


async def test_an_urgent_job_goes_before_what_is_ahead(one: Director, tmp_path: Path) -> None:
    _, short = await hold_all(one, tmp_path / "go")
    urgent = one.submit(calls.note, str(tmp_path / "go"), "urgent", priority=1)
    await until(lambda: ahead(one)[0][:1] == [urgent])  # taken back, and sent again in the new order
    (tmp_path / "go0").touch()
    await asyncio.gather(urgent, *short)
    assert (tmp_path / "go").read_text().split() == ["urgent", *(str(n) for n in range(20))]


async def test_what_does_not_fit_waits_for_its_turn(one: Director) -> None:
    values = [n if n % 3 else np.full(3_000 * n, n) for n in range(60)]
    results = await asyncio.gather(*(one.submit(calls.echo, value) for value in values))
    assert all(np.array_equal(result, value) for result, value in zip(results, values, strict=True))


async def test_what_can_not_be_sent_fails_in_its_turn(one: Director) -> None:
    values = [open if n % 5 else (lambda: (yield)).__call__() for n in range(40)]
    results = await asyncio.gather(*(one.submit(calls.echo, value) for value in values), return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [n % 5 == 0 for n in range(40)]


async def test_a_child_makes_no_more_calls_than_it_may(far_ahead: None) -> None:
    director = Director("cpu", executor=ProcessExecutor(max_jobs_per_worker=10), max_queue=None)
    async with opened(director):
        ids = await asyncio.gather(*(director.submit(calls.process_id) for _ in range(52)))
    counts = [ids.count(process) for process in dict.fromkeys(ids)]
    assert counts[1:-1] == [10] * (len(counts) - 2), "the first one has made calls before"
    assert counts[-1] <= 10


async def test_calls_with_a_model_are_ahead_only_where_it_is_loaded(two: Director, tmp_path: Path) -> None:
    model = Model(calls.load, replicas=1)
    await two.run(calls.weigh, model=model)
    go = tmp_path / "go"
    holding = [two.submit(calls.held, f"{go}{n}") for n in range(2)]
    await until(lambda: all(job.progress for job in holding))
    jobs = [two.submit(calls.weigh, model=model) for _ in range(20)]
    for n in range(2):
        (tmp_path / f"go{n}").touch()
    assert len(set(await asyncio.gather(*jobs))) == 1


async def test_leases_and_executors_are_never_ahead(one: Director) -> None:
    executor = one.as_executor()
    futures = [executor.submit(calls.bare_sum, n, 1) for n in range(30)]
    jobs = [one.submit(calls.nap, 0.001, n) for n in range(30)]
    assert await asyncio.gather(*map(asyncio.wrap_future, futures)) == [n + 1 for n in range(30)]
    assert await asyncio.gather(*jobs) == list(range(30))
    async with one.lease():
        pass


async def test_a_director_that_closes_begins_nothing_of_what_is_ahead(far_ahead: None, tmp_path: Path) -> None:
    async with opened(Director("cpu", executor=ProcessExecutor(grace=0.1), max_queue=None)) as director:
        _, short = await hold_all(director, tmp_path / "go")
        await director.close(timeout=0, grace=0.1)
    assert {type(job.exception()) for job in short} == {DirectorClosed}
    assert not (tmp_path / "go").exists()


async def test_nobody_is_lost_or_run_twice_whatever_happens(far_ahead: None, tmp_path: Path) -> None:
    """A little chaos: callers leave, children die, calls last unequally."""
    chance = random.Random(5)
    path = tmp_path / "ran"
    rules: Any = {"executor": "process", "max_queue": None}
    async with opened(Director("cpu:2", **rules)) as director:
        jobs: list[Job[Any]] = []
        began = time.monotonic()
        while time.monotonic() - began < 3:
            for _ in range(chance.randrange(30)):
                jobs.append(director.submit(calls.note, str(path), str(len(jobs))))
            if chance.random() < 0.2:
                jobs.append(director.submit(calls.nap, chance.random() * 0.05))
            for job in chance.sample(jobs[-20:], min(3, len(jobs))):
                job.cancel()
            if chance.random() < 0.03:
                runner: Any = chance.choice(director._runtime.scheduler.slots).runner  # type: ignore[union-attr]
                os.kill(runner._child.pid, signal.SIGKILL) if runner._child else None
            await asyncio.sleep(chance.random() * 0.02)
        await asyncio.wait(jobs)
        stats = director.stats()
    ran = path.read_text().split()
    assert len(ran) == len(set(ran)), "some ran twice"
    succeeded = {str(n) for n, job in enumerate(jobs) if not job.cancelled() and not job.exception()}
    naps = {str(n) for n, job in enumerate(jobs) if job.name == "nap"}
    assert succeeded - naps <= set(ran)
    lost = [job for job in jobs if not job.cancelled() and job.exception()]
    assert all(isinstance(job.exception(), WorkerDied) for job in lost)
    assert stats.queued == stats.running == 0


async def test_one_that_is_cancelled_just_while_it_is_sent_never_runs(
    one: Director, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its arguments and the moment from which its call can be found."""
    encode = CallEncoder.encode_prefetched
    go = tmp_path / "go"
    holding = one.submit(calls.held_talking, f"{go}0")
    await until(lambda: holding.progress)
    victim = []

    def cancel_first(self: CallEncoder, call: Any, child: Any) -> Any:
        found = encode(self, call, child)
        if call.fn is calls.note and not victim:
            victim.append(call.jobs[0])
            one._runtime.loop.call_soon_threadsafe(victim[0].cancel)  # type: ignore[union-attr]
            wait_until(victim[0].done)
        return found

    monkeypatch.setattr(CallEncoder, "encode_prefetched", cancel_first)
    jobs = [one.submit(calls.note, str(go), str(n)) for n in range(6)]
    await until(lambda: victim and ahead(one)[0][1:])
    (tmp_path / "go0").touch()
    await asyncio.wait(jobs)
    assert victim[0].cancelled()
    assert go.read_text().split() == [str(n) for n, job in enumerate(jobs) if job is not victim[0]]


# ---- nobody looks at a child that has work


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever isn't woken sleeps for longer than the test has."""
    monkeypatch.setattr(depths, "_DELAYED_PART", 1e9)
    monkeypatch.setattr(depths, "_LONGEST_DELAY", 1e6)


async def test_answers_wait_while_there_is_work_for_everybody(one: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    rests = []
    sleep = ChildProcess.sleep_until_exit

    def noted(self: ChildProcess, seconds: float) -> None:
        rests.append((seconds, len(ahead(one)[0])))
        sleep(self, seconds)

    monkeypatch.setattr(ChildProcess, "sleep_until_exit", noted)
    await asyncio.gather(*(one.submit(calls.nap, 0.002, n) for n in range(100)))
    assert max(rests)[0] > 0.001
    assert all(seconds <= depths._LONGEST_DELAY for seconds, _ in rests)
    assert not any(seconds for seconds, left in rests if not left), "the last answer is waited for"
    rests.clear()
    for _ in range(20):
        await one.run(calls.nap, 0.002)
    assert not any(seconds for seconds, _ in rests), "and so is each that somebody waits for alone"


async def test_a_death_ends_a_rest(
    one: Director, long_rests: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (holding,), short = await hold_all(one, tmp_path / "go")
    runner: Any = one._runtime.scheduler.slots[0].runner  # type: ignore[union-attr]
    os.kill(runner._child.pid, signal.SIGKILL)
    assert isinstance(await outcome(holding), WorkerDied)
    monkeypatch.setattr(depths, "_LONGEST_DELAY", 0.0)
    runner.recall_prefetched()  # it may rest again
    await asyncio.gather(*short)


async def test_a_slot_that_is_free_ends_a_rest(
    two: Director, long_rests: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, short = await hold_all(two, tmp_path / "go")
    for runner in (slot.runner for slot in two._runtime.scheduler.slots):  # type: ignore[union-attr]
        runner.recall_prefetched()
    await until(lambda: not any(ahead(two)))
    assert {job.state for job in short} == {JobState.QUEUED}
    monkeypatch.setattr(depths, "_LONGEST_DELAY", 0.0)
    for n in range(2):
        (tmp_path / f"go{n}").touch()
    await asyncio.gather(*short)
