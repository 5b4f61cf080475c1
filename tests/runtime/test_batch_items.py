"""What becomes of the items of a batch on their slot's thread: told late, cancelled or expired at any moment."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from harness.stage import FOREVER, PATIENCE

from director import Job, JobState, JobTimeout
from director._runtime.worker_thread.worker import Worker
from director.events import Event, JobStarted

MakeStage = "Callable[..., Awaitable[Stage]]"


@pytest.mark.parametrize("linger", [0.0, FOREVER])
async def test_callers_are_told_at_once_of_items_that_can_not_make_it(make_stage: MakeStage, linger: float) -> None:
    """Also when their worker has just come and finds nothing else to do."""
    stage = await make_stage(linger=linger)
    gate = stage.gate()
    function = stage.director.function(gate, max_batch_size=4, deadline=1.5)
    first = function.submit("first")
    await stage.quiet()
    await stage.advance(1.0)
    gate.open(["ready"])
    await stage.quiet()
    assert await first == "ready"  # and now it is known that a call takes a second

    second = function.submit("second")
    stage.clock.advance(1.0)  # before a worker looks
    await stage.quiet()
    assert second.done()
    assert isinstance(second.exception(), JobTimeout)
    assert gate.calls == 1


async def test_an_item_that_is_over_is_not_run_again_alone(make_stage: MakeStage) -> None:
    stage = await make_stage()
    calls: list[list[str]] = []
    gate = stage.gate()

    def many(device: Any, items: list[str]) -> list[str]:
        calls.append(items)
        if len(items) > 1:
            gate(device)
            raise ValueError(items)
        return items

    blocker, _ = stage.submit()
    await stage.quiet()
    function = stage.director.function(many, max_batch_size=4, isolate_failures=True)
    jobs = [function.submit(item) for item in "abcd"]
    await stage.quiet()
    blocker.open()
    await stage.until(lambda: gate.is_blocking)
    jobs[1].cancel()
    gate.open()
    await stage.until(lambda: all(job.done() for job in jobs))
    assert calls == [["a", "b", "c", "d"], ["a"], ["c"], ["d"]]
    assert [job.state for job in jobs].count(JobState.SUCCEEDED) == 3


async def test_what_left_before_the_call_is_not_counted_as_an_item_of_it(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in what a call of that size costs, nor in the event of its start."""
    taken, may_go, run_batch = threading.Event(), threading.Event(), Worker._run_batch

    def hesitate(worker: Worker, jobs: list[Job[Any]]) -> Any:
        taken.set()
        assert may_go.wait(PATIENCE)
        return run_batch(worker, jobs)

    monkeypatch.setattr(Worker, "_run_batch", hesitate)
    events: list[Event] = []
    stage = await make_stage(hooks=[events.append])
    blocker, _ = stage.submit()
    await stage.quiet()
    gate = stage.gate()
    function = stage.director.function(gate, max_batch_size=4)
    jobs = [function.submit(number) for number in range(4)]
    await asyncio.sleep(0)
    blocker.open()
    assert taken.wait(PATIENCE)
    jobs[0].cancel()
    jobs[1].cancel()
    may_go.set()
    await stage.quiet()
    assert gate.args == ([2, 3],)
    stage.clock.advance(1.0)
    gate.open([2, 3])
    await stage.quiet()
    assert {event.job: event.batch for event in events if isinstance(event, JobStarted)} == {1: 1, 4: 2, 5: 2}
    (learned,) = stage.director.stats().functions
    assert (learned.calls, learned.items) == (1, 2)
