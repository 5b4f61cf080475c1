"""The experiments with batches, apart from their figures: every batcher does the work, and the play is a Director's."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from harness.play import Play

from benchmarks import batching, slo
from benchmarks.batchers import EVERYBODY, MOST, Batcher
from director._jobs.options import Options
from director._scheduler.policy import SchedulingPolicy
from director.cli._bench.contenders import present
from director.errors import QueueFull

SLOTS = 2


class Crowd:
    """A function of batches that keeps them, and counts how many run at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.batches: list[list[float]] = []

    def __call__(self, items: list[float]) -> list[float]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.batches.append(items)
        threading.Event().wait(0.002)  # gives the GIL up: a third batch could come in
        with self._lock:
            self._now -= 1
        return [-item for item in items]


@pytest.mark.parametrize("batcher", present(EVERYBODY), ids=lambda batcher: batcher.name)
async def test_every_item_gets_its_own_result_in_batches_on_all_slots(batcher: Batcher) -> None:
    crowd = Crowd()
    items = [float(number) for number in range(1, 12 * MOST)]
    async with batcher.open(SLOTS, crowd) as submit:
        assert await asyncio.gather(*map(submit, items)) == [-item for item in items]
    assert sorted(item for batch in crowd.batches for item in batch) == items
    assert crowd.most == SLOTS
    assert max(map(len, crowd.batches)) == MOST


def test_a_plan_repeats_and_has_the_rate_it_should() -> None:
    moments = batching.plan(1000.0, 20_000, seed=1)
    assert moments == batching.plan(1000.0, 20_000, seed=1) != batching.plan(1000.0, 20_000, seed=2)
    assert moments[-1] == pytest.approx(20.0, rel=0.03)


@pytest.mark.serial
async def test_the_loop_stays_open_while_items_are_slow() -> None:
    """Items that take long don't hold back those that come later; each stay counts from the planned moment."""
    loop = asyncio.get_running_loop()

    def submit(_: float) -> asyncio.Future[None]:
        future = loop.create_future()
        loop.call_later(0.05, future.set_result, None)
        return future

    began = time.perf_counter()
    stays = await batching.serve(submit, [0.0, 0.001, 0.002])
    assert time.perf_counter() - began < 0.15
    assert all(0.045 < stay < 0.15 for stay in stays)


@pytest.mark.serial
def test_the_loop_of_the_plan_is_exact() -> None:
    async def shortest() -> float:
        stays = []
        for _ in range(100):
            began = time.perf_counter()
            await asyncio.sleep(0.0002)
            stays.append(time.perf_counter() - began)
        return min(stays)

    assert batching.run(shortest()) < 0.001  # epoll would make a millisecond of each


def test_the_model_alone_is_never_faster_than_its_peak() -> None:
    """How much slower it is depends on what else the machine does."""
    assert 0 < batching.alone(10 * SLOTS * MOST) <= 1.01 * batching.PEAK


def test_the_search_finds_where_enough_are_in_time() -> None:
    """Of arrivals that are dealt with up to a rate and not beyond."""

    def serve(moments: list[float]) -> list[bool]:
        return [len(moments) / moments[-1] < 4000.0] * len(moments)

    assert slo.highest_rate(serve, 20_000, seed=1, precision=5.0) == pytest.approx(4000, rel=0.02)


def test_the_director_is_taught_before_it_is_judged() -> None:
    assert all(slo.played(batching.plan(1000.0, 2000, seed=1), max_wait=0.0))
    assert not any(slo.greedy([0.0] * 100)[slo.DEVICES * 18 :])


# ---- the play


def test_a_play_refuses_as_a_director_does() -> None:
    play = Play([1], lambda jobs, _: 1.0, SchedulingPolicy(max_queue=1))
    play.submit(Options())
    play.submit(Options())
    with pytest.raises(QueueFull):
        play.submit(Options())
    play.run()
    assert play.now == 2.0
    play.submit(Options())


def test_time_stands_where_it_was_told_to() -> None:
    play = Play([1], lambda jobs, _: 1.0)
    seen: list[float] = []
    for moment in (3.0, 1.0, 2.0):
        play.at(moment, lambda: seen.append(play.now))
    play.run(until=2.5)
    assert (seen, play.now) == ([1.0, 2.0], 2.5)
    play.run()
    assert seen == [1.0, 2.0, 3.0]


def test_a_withdrawn_job_never_runs() -> None:
    play = Play([1], lambda jobs, _: 1.0)
    play.submit(Options())
    job = play.submit(Options())
    assert play.cancel(job)
    assert not play.cancel(job)
    play.run()
    assert len(play.calls) == 1
