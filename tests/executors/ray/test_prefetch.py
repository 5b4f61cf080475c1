"""The call that an actor has ahead of its turn: once, taken back when it is better off elsewhere, and its answer."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from dataclasses import replace
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome, until

from director import Director, Health, WorkerDied
from director._executors.ray import prefetch_queue as prefetched
from director._executors.ray.runner import ClockOffset
from executors.ray import work
from executors.ray.test_death import runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ahead goes back only when another slot asks for it."""
    monkeypatch.setattr(prefetched, "_RETURN_AFTER", 1000.0)


@pytest.fixture
async def two(solo: Any) -> AsyncIterator[Director]:
    """Two slots that know how long a call takes."""
    async with Director(executor=replace(solo), slots=2, max_queue=None) as director:
        await asyncio.gather(*[director.submit(work.sleep, 0.005) for _ in range(20)])
        yield director


def ahead(director: Director) -> list[int]:
    """How many jobs each slot holds before their turn."""
    assert director._runtime is not None
    return [len(slot.prefetched) for slot in director._runtime.scheduler.slots]


async def test_many_short_calls_run_once(patient: None, two: Director, tmp_path: Path) -> None:
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.001) for number in range(300)]
    most = 0
    while not jobs[-1].done():
        most = max(most, *ahead(two))
        await asyncio.sleep(0)
    assert await asyncio.gather(*jobs) == list(range(300))
    assert runs(tmp_path) == dict.fromkeys(range(300), 1)
    assert most == 1


async def test_calls_that_are_taken_back_all_the_time_run_once(
    two: Director, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is overdue as soon as it begins, so that taking back meets every moment of a call."""
    monkeypatch.setattr(prefetched, "_RETURN_AFTER", 0.02)
    monkeypatch.setattr(prefetched, "_RETURN_AFTER_AT_LEAST", 0.0)
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.003) for number in range(400)]
    assert await asyncio.wait_for(asyncio.gather(*jobs), 30) == list(range(400))
    assert runs(tmp_path) == dict.fromkeys(range(400), 1)


async def test_what_is_ahead_goes_to_a_slot_that_is_free_first(patient: None, two: Director, tmp_path: Path) -> None:
    long = two.submit(work.cooperative, str(tmp_path / "long"))
    other = two.submit(work.sleep, 0.3)
    short = [two.submit(work.sign, str(tmp_path), number, 0.001) for number in range(20)]
    await until(lambda: sum(ahead(two)))
    await asyncio.wait_for(asyncio.gather(other, *short), 10)
    assert not long.done()
    assert {job.device for job in short} == {long.device}
    long.cancel()
    assert runs(tmp_path) == dict.fromkeys(range(20), 1)


async def test_a_cancelled_job_that_is_ahead_does_not_run(patient: None, two: Director, tmp_path: Path) -> None:
    holding = [two.submit(work.cooperative, str(tmp_path / f"long{number}")) for number in range(2)]
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.0) for number in range(40)]
    await until(lambda: min(ahead(two)) == 1)
    assert two._runtime is not None
    sent = [slot.prefetched[0] for slot in two._runtime.scheduler.slots]
    for job in sent:
        job.cancel()
    await asyncio.sleep(0.3)  # a notice is under way for milliseconds; the call may be quicker, as with every executor
    for each in holding:
        each.cancel()
    await asyncio.gather(*holding, *jobs, return_exceptions=True)
    cancelled = [number for number, job in enumerate(jobs) if job in sent]
    assert len(cancelled) == 2
    assert runs(tmp_path) == {number: 1 for number in range(40) if number not in cancelled}


async def test_one_death_is_one_loss(patient: None, two: Director, tmp_path: Path) -> None:
    process = await two.run(work.process_id)
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.01) for number in range(200)]
    await jobs[20]
    os.kill(process, signal.SIGKILL)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    lost = [number for number, each in enumerate(outcomes) if isinstance(each, WorkerDied)]
    assert len(lost) <= 2  # the one that ran, and one that had begun when its answer was lost
    assert set(runs(tmp_path).values()) <= {0, 1}  # 0: killed when it had opened its file
    assert set(range(200)) - set(runs(tmp_path)) <= set(lost)
    assert two.healthy
    assert all(device.health is Health.HEALTHY for device in two.stats().devices)


async def test_each_call_has_its_own_answer(patient: None, two: Director, tmp_path: Path) -> None:
    """Whatever is before and behind it: what is heavy, what fails, what can't be sent."""
    calls: list[tuple[Any, ...]] = [
        (work.echo, {"a": [1]}),
        (work.sign, str(tmp_path), 1, 0.01),
        (work.unsendable,),
        (work.zeros, 200_000),
        (work.fail, KeyError("mine")),
        (work.echo, "x" * 100_000),
    ]
    jobs = [two.submit(*call) for _ in range(20) for call in calls]
    outcomes = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
    assert outcomes[0::6] == [{"a": [1]}] * 20
    assert outcomes[1::6] == [1] * 20
    assert {type(each) for each in outcomes[2::6]} == {PicklingError}
    assert [each.nbytes for each in outcomes[3::6]] == [200_000] * 20  # type: ignore[union-attr]
    assert {type(each) for each in outcomes[4::6]} == {KeyError}
    assert outcomes[5::6] == ["x" * 100_000] * 20
    assert runs(tmp_path) == {1: 20}


async def test_an_argument_that_cannot_be_sent_keeps_no_other(patient: None, two: Director) -> None:
    jobs = [two.submit(work.echo, threading.Lock() if number % 7 == 3 else number) for number in range(70)]
    outcomes = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
    for number, each in enumerate(outcomes):
        assert isinstance(each, PicklingError) if number % 7 == 3 else each == number


async def test_a_call_behind_one_that_waits_for_a_reference_has_its_own_answer(patient: None, single: Director) -> None:
    """The one that waits is cancelled before and after it has begun: the calls around it keep their answers."""
    import ray

    remote: Any = ray.remote
    await asyncio.gather(*[single.submit(work.echo, number) for number in range(50)])
    slow = remote(num_cpus=0)(work.sleep)
    for pause in (0.0, 0.02, 0.05):
        reference = slow.remote(None, 0.4)
        first = single.submit(work.echo_late, "first", 0.03)
        waits = single.submit(work.echo, reference)
        await asyncio.sleep(pause)
        waits.cancel()
        others = [single.submit(work.echo_late, number, 0.01) for number in range(5)]
        assert await asyncio.wait_for(asyncio.gather(first, *others), 20) == ["first", *range(5)]
        assert waits.cancelled()


async def test_what_a_reference_raises_is_of_its_job(single: Director) -> None:
    import ray

    remote: Any = ray.remote
    error = await outcome(
        single.run(work.echo, remote(num_cpus=0, max_retries=0)(work.fail).remote(None, KeyError("mine")))
    )
    assert isinstance(error, KeyError)
    assert await single.run(work.echo, ray.put("there")) == "there"


async def test_an_error_of_rays_that_a_job_raises_is_its_own(single: Director) -> None:
    from ray.exceptions import ActorDiedError, NodeDiedError

    for error in (ActorDiedError(), NodeDiedError("mine")):
        assert type(await outcome(single.run(work.fail, error))) is type(error)
    assert single.stats().devices[0].health is Health.HEALTHY


class Touchy:
    """Raises whatever it is told to when it is touched where it is told to."""

    def __init__(self, where: str, error: type[BaseException] = AssertionError) -> None:
        self.where, self.error = where, error

    @property
    def nbytes(self) -> int:
        raise self.error("nbytes")

    def __len__(self) -> int:
        raise self.error("len")

    def __reduce__(self) -> Any:
        if self.where == "here":
            raise self.error("reduce")
        return touch, (self.where, self.error)


def touch(where: str, error: type[BaseException]) -> Any:
    if where == "there":
        raise error("rebuilt")
    return Touchy("here", error)


@pytest.mark.parametrize("error", [AssertionError, SystemExit])
@pytest.mark.parametrize("where", ["here", "there", "back"])
async def test_an_argument_harms_its_own_job_alone(
    patient: None, single: Director, where: str, error: type[BaseException]
) -> None:
    process = await single.run(work.process_id)
    jobs = [single.submit(work.echo, Touchy(where, error) if number % 5 == 3 else number) for number in range(40)]
    outcomes = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
    for number, each in enumerate(outcomes):
        assert isinstance(each, (PicklingError, error)) if number % 5 == 3 else each == number
    assert await single.run(work.process_id) == process


def test_the_offset_of_another_clock() -> None:
    offset = ClockOffset()
    assert offset.to_local(110.0, 111.0, 9.9, 11.1) == pytest.approx(11.0)
    assert offset.to_local(120.0, 121.0, 19.99, 30.0) == pytest.approx(21.045, abs=0.01)  # read late
    assert offset.to_local(5.0, 6.0, 40.0, 41.0) == pytest.approx(41.0)  # a clock was set
