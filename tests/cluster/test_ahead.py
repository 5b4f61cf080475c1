"""Calls that actors have ahead of their turn: each once, taken back when they are better off elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from dataclasses import replace
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

import pytest
from public.gates import until

from cluster import work
from cluster.test_death import runs
from director import Director, WorkerDied
from director._executors._process import pace
from director._executors._ray import stock
from director._executors._ray.offset import Offset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a slow network."""
    monkeypatch.setattr(pace, "_SHORTEST", 0.05)
    monkeypatch.setattr(pace, "_PATIENCE", 1000.0)


@pytest.fixture
async def two(solo: Any) -> AsyncIterator[Director]:
    """Two slots that know how long a call takes."""
    async with Director(executor=replace(solo), slots=2, max_queue=None) as director:
        await asyncio.gather(*[director.submit(work.sleep, 0.005) for _ in range(20)])
        yield director


def ahead(director: Director) -> list[int]:
    """How many jobs each slot holds before their turn."""
    assert director._crew is not None
    return [len(slot.ahead) for slot in director._crew.dispatch.slots]


async def test_many_short_calls_run_once(far_ahead: None, two: Director, tmp_path: Path) -> None:
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.001) for number in range(300)]
    most = 0
    while not jobs[-1].done():
        most = max(most, *ahead(two))
        await asyncio.sleep(0)
    assert await asyncio.gather(*jobs) == list(range(300))
    assert runs(tmp_path) == dict.fromkeys(range(300), 1)
    assert most > 1


async def test_calls_that_are_taken_back_all_the_time_run_once(
    two: Director, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is overdue as soon as it begins, so that taking back meets every moment of a call."""
    monkeypatch.setattr(pace, "_SHORTEST", 0.05)
    monkeypatch.setattr(pace, "_PATIENCE", 0.02)
    monkeypatch.setattr(stock, "_PATIENCE", 0.0)
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.003) for number in range(400)]
    assert await asyncio.wait_for(asyncio.gather(*jobs), 30) == list(range(400))
    assert runs(tmp_path) == dict.fromkeys(range(400), 1)


async def test_what_is_ahead_goes_to_a_slot_that_is_free_first(far_ahead: None, two: Director, tmp_path: Path) -> None:
    long = two.submit(work.cooperative, str(tmp_path / "long"))
    other = two.submit(work.sleep, 0.3)
    short = [two.submit(work.sign, str(tmp_path), number, 0.001) for number in range(20)]
    await until(lambda: sum(ahead(two)))
    await asyncio.wait_for(asyncio.gather(other, *short), 10)
    assert not long.done()
    assert {job.device for job in short} == {long.device}
    long.cancel()
    assert runs(tmp_path) == dict.fromkeys(range(20), 1)


async def test_a_cancelled_job_that_is_ahead_does_not_run(far_ahead: None, two: Director, tmp_path: Path) -> None:
    holding = [two.submit(work.cooperative, str(tmp_path / f"long{number}")) for number in range(2)]
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.0) for number in range(40)]
    await until(lambda: min(ahead(two)) > 1)
    for job in jobs[::2]:
        job.cancel()
    await asyncio.sleep(0.3)  # a notice is under way for milliseconds; who is quicker runs, as with every executor
    for job in holding:
        job.cancel()
    await asyncio.gather(*holding, *jobs, return_exceptions=True)
    assert runs(tmp_path) == dict.fromkeys(range(1, 40, 2), 1)


async def test_what_is_ahead_of_a_killed_actor_runs_once(far_ahead: None, two: Director, tmp_path: Path) -> None:
    process = await two.run(work.process_id)
    jobs = [two.submit(work.sign, str(tmp_path), number, 0.01) for number in range(200)]
    await jobs[20]
    os.kill(process, signal.SIGKILL)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    lost = [number for number, each in enumerate(outcomes) if isinstance(each, WorkerDied)]
    assert len(lost) <= 2  # the one that ran, and one that had begun when its answer was lost
    assert set(runs(tmp_path).values()) <= {0, 1}  # 0: killed when it had opened its file
    assert set(range(200)) - set(runs(tmp_path)) <= set(lost)


async def test_what_calls_return_that_travel_together(far_ahead: None, two: Director, tmp_path: Path) -> None:
    """Among them what is heavy, what fails, and what can't be sent: it does not keep the others."""
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


async def test_an_argument_that_cannot_be_sent_keeps_no_other(far_ahead: None, two: Director) -> None:
    jobs = [two.submit(work.echo, threading.Lock() if number % 7 == 3 else number) for number in range(70)]
    outcomes = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
    for number, each in enumerate(outcomes):
        assert isinstance(each, PicklingError) if number % 7 == 3 else each == number


async def test_an_answer_does_not_wait_for_a_long_call_of_its_letter(single: Director, tmp_path: Path) -> None:
    await asyncio.gather(*[single.submit(work.echo, number) for number in range(100)])
    jobs = [single.submit(work.echo, number) for number in range(20)]
    long = single.submit(work.cooperative, str(tmp_path / "long"))
    assert await asyncio.wait_for(asyncio.gather(*jobs), 5) == list(range(20))
    assert not long.done()
    long.cancel()


def test_the_offset_of_another_clock() -> None:
    offset = Offset()
    assert offset.here(110.0, 111.0, 9.9, 11.1) == (pytest.approx(10.0), pytest.approx(11.0), pytest.approx(0.1))
    began, ended, way = offset.here(120.0, 121.0, 19.99, 30.0)  # the answer was read late: nothing new on that side
    assert (began, ended) == (pytest.approx(20.0, abs=0.1), pytest.approx(21.0, abs=0.1))
    assert way < 0.11
    assert offset.here(5.0, 6.0, 40.0, 41.0)[0] == pytest.approx(40.0)  # a clock was set
