"""Every accepted job is in exactly one count, whenever somebody looks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.stage import Stage

from director import Director, Model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.stage import Stage

    Make = Callable[..., Awaitable[Stage]]


def total(director: Director) -> int:
    stats = director.stats()
    return stats.queued + stats.running + stats.succeeded + stats.failed + stats.cancelled


@pytest.mark.parametrize(
    "outcome",
    [
        "result",
        ValueError("its own"),
    ],
    ids=repr,
)
async def test_a_job_whose_outcome_is_on_its_way_is_counted(make_stage: Make, outcome: Any) -> None:
    stage = await make_stage()
    (gate, job), (following, _) = stage.submit(), stage.submit()
    await stage.quiet()
    gate.open(outcome)
    stage.wait(lambda: following.is_blocking)  # the loop has not heard of the first yet
    counted = total(stage.director)
    await asyncio.wait([job])
    job.exception()
    assert counted == total(stage.director) == 2


async def test_jobs_that_a_failed_load_takes_along_are_counted(make_stage: Make) -> None:
    stage = await make_stage()
    loading = stage.gate()
    model = Model(loading)
    jobs = [stage.director.submit(lambda replica: 1, model=model) for _ in range(3)]
    await stage.until(lambda: loading.is_blocking)
    gate, _ = stage.submit()
    loading.open(ValueError("no model"))
    stage.wait(lambda: gate.is_blocking)  # the loop has not heard of the others yet
    counted = total(stage.director)
    await asyncio.wait(jobs)
    assert all(isinstance(job.exception(), ValueError) for job in jobs)
    assert counted == total(stage.director) == 4
