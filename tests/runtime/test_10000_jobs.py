"""Ten thousand jobs with seeded cancels and failures, real threads and real races: every job is accounted for."""

from __future__ import annotations

import asyncio
import operator
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE

from director import Device, Director, DirectorClosed, Job, JobAborted, Model, current_device
from director._jobs.state import JobState
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = 10_000
STRESS = 2.0  # seconds


class Refused(Exception):
    """What a job raises that is told to fail."""


class Floor:
    """Counts the jobs inside, by device, from inside."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.calls: Counter[int] = Counter()

    def work(self, _resource: Any, number: int, fails: bool) -> int:
        device = current_device()
        with self.lock:
            self.calls[number] += 1
            self.inside[device] += 1
            self.most[device] = max(self.most[device], self.inside[device])
        if number % 97 == 0:
            time.sleep(0.0005)  # another thread's turn
        with self.lock:
            self.inside[device] -= 1
        if fails:
            raise Refused(number)
        return number


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Let threads be interrupted between any two instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def check_whole(director: Director, runtime: Any) -> None:
    assert all(permits._value == len(place.slots) for place, permits in runtime.worker_pool.permits.items())
    assert all(slot.state is SlotState.IDLE and slot.job is None for slot in runtime.scheduler.slots)
    assert not any(slot.thread._thread.is_alive() for slot in runtime.scheduler.slots)
    stats = director.stats()
    assert (stats.queued, stats.running) == (0, 0)
    assert sum(device.busy for device in stats.devices) == 0


@pytest.mark.every_loop
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_job_is_accounted_for(seed: int) -> None:
    chance = random.Random(seed)
    floor = Floor()
    director = Director("simulated:3", slots=2, max_queue=None)
    await director.start()
    runtime = director._runtime
    models = [None, Model(lambda device: device), Model(lambda device: device, per_slot=True)]
    jobs: list[Job[int]] = []
    for number in range(JOBS):
        options: dict[str, Any] = {"priority": chance.choice([0, 0, 0, 1, -1]), "model": chance.choice(models)}
        if chance.random() < 0.2:
            options["devices"] = chance.sample(range(3), chance.randint(1, 2))
        jobs.append(director.submit(floor.work, number, chance.random() < 0.1, **options))
        if chance.random() < 0.2:
            chance.choice(jobs[-20:]).cancel()
        if chance.random() < 0.01:
            await asyncio.sleep(0)
    results = await asyncio.gather(*jobs, return_exceptions=True)
    stats = director.stats()
    await director.close()

    ends = Counter(job.state for job in jobs)
    assert stats.succeeded == ends[JobState.SUCCEEDED] > JOBS / 2
    assert stats.failed == ends[JobState.FAILED] > 100
    assert stats.cancelled == ends[JobState.CANCELLED] > 100
    assert stats.succeeded + stats.failed + stats.cancelled == JOBS
    for number, (job, result) in enumerate(zip(jobs, results, strict=True)):
        if job.state is JobState.SUCCEEDED:
            assert result == number
        elif job.state is JobState.FAILED:
            assert isinstance(result, Refused)
            assert result.args == (number,)
        else:
            assert isinstance(result, asyncio.CancelledError)
        assert floor.calls[number] == 1 if job.state is not JobState.CANCELLED else floor.calls[number] <= 1
    assert max(floor.most.values()) <= 2
    check_whole(director, runtime)


@pytest.mark.every_loop
async def test_callers_come_and_go_under_races(many_switches: None) -> None:
    """Callers submit, wait, time out and leave; workers park, leave and come back; the totals add up all the time."""
    chance = random.Random(7)
    floor = Floor()
    director = Director("simulated:2", slots={0: 1, 1: 2}, max_queue=3)
    await director.start()
    runtime: Any = director._runtime
    runtime.scheduler.linger = 0.0005  # so that workers often leave just as they are called
    until = time.monotonic() + STRESS
    outcomes: Counter[str] = Counter()

    async def call(number: int) -> None:
        fails = chance.random() < 0.1
        devices = chance.choice([None, None, 0, 1])
        patience = chance.choice([None, None, 0.0, 0.001])
        try:
            async with asyncio.timeout(patience):
                assert await director.run(floor.work, number, fails, devices=devices) == number
            outcomes["succeeded"] += 1
        except Refused:
            outcomes["failed"] += 1
        except TimeoutError:
            outcomes["left"] += 1

    async def caller(first: int) -> None:
        for number in range(first, sys.maxsize, 8):
            if time.monotonic() > until:
                return
            await call(number)
            if chance.random() < 0.1:
                await asyncio.sleep(chance.choice([0, 0.0004, 0.0006]))

    await asyncio.gather(*(caller(first) for first in range(8)))
    await director.close()
    stats = director.stats()
    assert outcomes.total() == stats.succeeded + stats.failed + stats.cancelled
    assert stats.succeeded >= outcomes["succeeded"] > 0
    assert outcomes["failed"] > 0
    assert outcomes["left"] > 0
    assert all(most <= device.slots for device in stats.devices for most in [floor.most[device.device]])
    assert max(floor.calls.values()) == 1
    check_whole(director, runtime)


async def test_threads_submit_while_the_loop_cancels(many_switches: None) -> None:
    """The executor face is open to all threads; the Director closes when they have gone."""
    chance = random.Random(11)
    floor = Floor()
    director = Director("simulated:2", slots=2, max_queue=None)
    await director.start()
    runtime = director._runtime
    executor = director.as_executor()
    count = 500
    futures: list[list[Any]] = [[], [], []]

    def submit(which: int) -> None:
        for number in range(which * count, (which + 1) * count):
            future = executor.submit(floor.work, None, number, False)
            futures[which].append(future)
            if number % 5 == 0:
                future.cancel()

    await asyncio.gather(*(asyncio.to_thread(submit, which) for which in range(3)), churn(director, chance))
    for future in (future for part in futures for future in part):
        if not future.cancelled():
            await asyncio.wrap_future(future)
    await director.close()
    done = [future for part in futures for future in part]
    assert len(done) == 3 * count
    assert all(floor.calls[number] <= 1 for number in range(3 * count))
    assert all(future.cancelled() or future.result() == number for number, future in enumerate(done))
    check_whole(director, runtime)


async def churn(director: Director, chance: random.Random) -> None:
    for _ in range(200):
        job = director.submit(lambda device: None)
        await asyncio.sleep(0)
        if chance.random() < 0.5:
            job.cancel()
        await asyncio.wait([job])


def load(device: Device) -> int:
    return device.index


OPTIONS: list[dict[str, Any]] = [
    {},
    {"priority": 1},
    {"tenant": "one"},
    {"devices": 1},
    {"deadline": 600.0},
    {"timeout": 600.0, "retries": 1},
    {"memory": 1, "model": Model(load)},
]


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["to the end", "cut by the close"])
async def test_every_call_of_eight_threads_has_its_outcome(executor: Any, is_cut: bool, many_switches: None) -> None:
    """Each call with an executor of its own; some are cancelled, and the Director may close among them."""
    calls, threads = 50, 8
    director = Director("simulated:2", executor=executor, max_queue=None)
    await director.start()
    enough = threading.Barrier(threads + 1)

    def use(which: int) -> list[tuple[int, Future[int]]]:
        chance, futures = random.Random(which), list[tuple[int, Future[int]]]()
        for number in range(calls):
            if number == calls // 2:
                enough.wait(PATIENCE)
            try:
                future = director.as_executor(**chance.choice(OPTIONS)).submit(operator.add, number, 1000 * which)
            except DirectorClosed:
                break
            futures.append((number + 1000 * which, future))
            if chance.random() < 0.3:
                future.cancel()
            elif chance.random() < 0.3:
                wait([future], PATIENCE)
        return futures

    with ThreadPoolExecutor(threads + 1) as pool:
        used = [asyncio.wrap_future(pool.submit(use, which)) for which in range(threads)]
        await asyncio.wrap_future(pool.submit(enough.wait, PATIENCE))
        if is_cut:
            await director.close(0, 0)
        outcomes = [each for futures in await asyncio.gather(*used) for each in futures]
        waiting = pool.submit(wait, [future for _, future in outcomes], PATIENCE)
        done, left = await asyncio.wrap_future(waiting)
    await director.close()
    assert (len(done), left) == (len(outcomes), set())
    assert is_cut or len(outcomes) == calls * threads
    for expected, future in outcomes:
        if not future.cancelled():
            error = future.exception(0)
            assert future.result(0) == expected if error is None else is_cut
            assert error is None or isinstance(error, (DirectorClosed, JobAborted))
    stats = director.stats()
    assert (stats.queued, stats.running) == (0, 0)
