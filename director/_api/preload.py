"""Loads a model in advance: an empty job for each device (or slot) that may have a replica."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from director._jobs.options import Options
from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import Job
    from director._jobs.model import Model
    from director._scheduler.slots import DeviceSlots

_FIRST = 2**31  # priority: before the jobs that need the model


async def load_model(
    places: list[DeviceSlots],
    model: Model[Any],
    allowed: frozenset[int] | None,
    is_apart: bool,
    open_job: Callable[[Callable[[Any], None], Options], Job[None]],
) -> None:
    """Load `model` wherever it may be loaded, and wait for all; raises what the first failing load raised.

    Cancellation: loads that wait are dropped; those that have begun go on.

    `is_apart`: slots don't share replicas.
    """
    jobs = [open_job(_nothing, _only_on(numbers, model)) for numbers in _targets(places, model, allowed, is_apart)]
    try:
        if jobs:
            await asyncio.wait(jobs)  # not a task for each: a loader's SystemExit in one would end the event loop
    except asyncio.CancelledError:
        for job in jobs:
            if job.state is JobState.QUEUED:  # a load that has begun goes on
                job.cancel()
        raise
    errors = [asyncio.CancelledError() if job.cancelled() else job.exception() for job in jobs]
    for error in errors:
        if error is not None:
            raise error


def _targets(
    places: list[DeviceSlots], model: Model[Any], allowed: frozenset[int] | None, is_apart: bool
) -> list[frozenset[int]]:
    everywhere = [frozenset(slot.number for slot in place.slots) for place in places]
    targets = [numbers for numbers in everywhere if allowed is None or numbers & allowed]
    if not (model.per_slot or is_apart):
        return targets
    return [frozenset({number}) for numbers in targets for number in sorted(numbers)]


def _only_on(numbers: frozenset[int], model: Model[Any]) -> Options:
    return Options(model, _FIRST, None, None, numbers, f"loading {model.name}")


def _nothing(_replica: Any) -> None:
    """Nothing: the runner has loaded the model."""
