"""Tries that are interrupted in the middle of a step."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from harness.desk import CANCELLED, Desk
from harness.stage import PATIENCE

from director._jobs.job import JobExtras
from director._scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    import pytest

    from director._scheduler.slots import Slot

MakeStage = "Callable[..., Awaitable[Stage]]"


async def test_a_job_that_waits_again_is_not_counted_as_running_in_the_slot_that_still_shows_it(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome may be delivered before its worker has looked for the next job."""
    failed, may_go, take = threading.Event(), threading.Event(), Scheduler.next_work

    def hesitate(scheduler: Scheduler, slot: Slot) -> Any:
        if slot.job is not None:
            failed.set()
            assert may_go.wait(PATIENCE)
        return take(scheduler, slot)

    monkeypatch.setattr(Scheduler, "next_work", hesitate)
    stage = await make_stage()
    gate, job = stage.submit(retries=1, retry_on=OSError, backoff=1.0)
    await stage.quiet()
    gate.open(OSError())
    assert failed.wait(PATIENCE)
    runtime = stage.director._runtime
    assert runtime is not None
    runtime.loop_channel.deliver()
    stats = stage.director.stats()
    assert (stats.queued, stats.running) == (1, 0)
    may_go.set()
    await stage.quiet()
    job.cancel()


def test_what_was_withdrawn_before_the_queue_became_rich_is_let_go_outside_of_the_lock() -> None:
    desk = Desk([1])
    locked: list[bool] = []

    class Resource:
        def __del__(self) -> None:
            locked.append(desk.scheduler._is_deciding)

        def use(self, device: Any) -> None: ...

    (slot,) = desk.slots
    job = desk.admit()
    desk.settle()
    for gone in [desk.admit(fn=Resource().use) for _ in range(30)]:
        desk.scheduler.remove(gone, CANCELLED)
    del gone
    assert slot.job is job
    job.extras = JobExtras()
    desk.fail(slot)
    desk.try_again(job)
    desk.take(slot)
    assert locked
    assert not any(locked)
