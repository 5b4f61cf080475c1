"""What is ahead of children, apart from them: how much that should be, and where it goes when it comes back."""

from __future__ import annotations

from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from director import Director, JobState
from director._executors.remote import prefetch_depth as depths
from director._executors.remote.prefetch_depth import PrefetchDepth
from director._scheduler.policy import SchedulingPolicy
from director._scheduler.prefetch import Prefetch
from director._scheduler.queue.ready_queue import ReadyQueue
from executors.process import calls

if TYPE_CHECKING:
    from collections.abc import Callable


def paced(times: Callable[[int], tuple[float, float, float]]) -> PrefetchDepth:
    found = PrefetchDepth()
    for n in range(1, 30):
        found.note(*times(n))
    return found


def test_what_comes_back_finds_its_place() -> None:
    queue = ReadyQueue(SchedulingPolicy())
    slot: Any = SimpleNamespace(prefetched=deque())
    jobs: list[Any] = [SimpleNamespace(id=n, state=JobState.RUNNING, location=slot) for n in range(6)]
    for job in jobs:
        job.transition = partial(setattr, job, "state")
    slot.prefetched.extend(jobs)
    held = Prefetch([slot], None, queue, None, None, lambda model: frozenset())  # type: ignore[arg-type]
    held.count = len(jobs)
    for n in (3, 1, 5, 0, 4, 2):
        held.give_back(slot, [jobs[n]])
    assert [queue.pop_fifo(slot) for _ in jobs] == jobs
    assert not slot.prefetched
    assert held.count == 0


@pytest.mark.parametrize("give_back", [Prefetch.give_back, Prefetch.withdraw])
def test_a_job_that_the_slot_has_taken_is_not_given_back(give_back: Callable[..., None]) -> None:
    queue = ReadyQueue(SchedulingPolicy())
    slot: Any = SimpleNamespace(prefetched=deque())
    jobs: list[Any] = [SimpleNamespace(id=n, state=JobState.RUNNING, location=slot) for n in range(2)]
    for job in jobs:
        job.transition = partial(setattr, job, "state")
    slot.prefetched.extend(jobs)
    held = Prefetch([slot], None, queue, None, None, lambda model: frozenset())  # type: ignore[arg-type]
    held.count = len(jobs)
    held.next_for(slot).state = JobState.CANCELLED  # so that its call is not made
    give_back(held, slot, jobs)
    assert not slot.prefetched
    assert held.count == 0
    assert jobs[0].state is JobState.CANCELLED
    assert jobs[1].state in (JobState.QUEUED, JobState.FAILED)


def test_an_answer_waits_for_a_part_of_what_is_ahead() -> None:
    paced_ = paced(lambda n: (n, n + 0.001, n + 0.001))
    assert paced_.read_delay(8) == pytest.approx(0.002)
    assert paced_.read_delay(1000) == 0.005
    assert paced_.read_delay(0) == 0


@pytest.mark.serial
async def test_a_call_that_imports_its_function_says_nothing_of_the_next_one() -> None:
    async with Director("cpu", executor="process") as director:
        await director.run(calls.nap, 0.001)  # imports NumPy among others
        pace_ = director._runtime.scheduler.slots[0].runner._queue.depth  # type: ignore[union-attr, attr-defined]
        assert pace_.mean == 0
        await director.run(calls.nap, 0.001)
        assert 0.001 <= pace_.mean < 0.1


def test_nothing_is_ahead_while_nothing_is_known() -> None:
    assert PrefetchDepth().depth == 0


@pytest.mark.parametrize(("seconds", "depth"), [(0.0004, 50), (0.0009, 23), (0.03, 1), (0.6, 0)])
def test_the_depth_follows_the_run_time(seconds: float, depth: int) -> None:
    assert paced(lambda n: (n, n + seconds, n + seconds)).depth == pytest.approx(depth, abs=0.06 * depth)


def test_a_late_thread_has_more_ahead_and_forgets_it_soon() -> None:
    late = paced(lambda n: (n * 0.01, n * 0.01 + 0.001, n * 0.01 + 0.025))
    assert late.depth == pytest.approx(36, abs=1)
    for n in range(100):
        late.note(1 + n * 0.01, 1 + n * 0.01 + 0.001, 1 + n * 0.01 + 0.001)
    assert late.depth <= 21


def test_there_is_a_limit() -> None:
    assert paced(lambda n: (n, n + 1e-6, n + 1)).depth == depths.MOST
