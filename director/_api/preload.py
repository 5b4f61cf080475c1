"""Loads a model in advance: an empty job for each device (or slot) that may have a replica."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from director._jobs.calls import load_only
from director._jobs.options import Options
from director._jobs.state import JobState
from director._untrusted.objects import add_note, describe
from director.errors import DeviceLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._device import Device
    from director._jobs.job import Job
    from director._jobs.model import Model
    from director._scheduler.slots import DeviceSlots

_FIRST = 2**31  # priority: before the jobs that need the model


async def load_model(
    places: list[DeviceSlots],
    model: Model[Any],
    allowed: frozenset[int] | None,
    is_apart: bool,
    is_any_enough: bool,
    open_job: Callable[[Callable[[Any], None], Options], Job[None]],
) -> None:
    """Load `model` wherever it may be loaded, and wait for all, or with `is_any_enough` for the first replica.

    Raises what the load on the first device that failed has raised, with notes that name the devices.

    Cancellation: loads that wait are dropped; those that have begun go on.

    `is_apart`: slots don't share replicas.
    """
    jobs: dict[Job[None], Device] = {}
    errors: list[tuple[Device, BaseException]] = []
    for place, numbers in _targets(places, model, allowed, is_apart):
        try:
            options = Options(model, _FIRST, None, None, numbers, f"loading {model.name}")
            jobs[open_job(load_only, options)] = place.device
        except DeviceLost as lost:  # it is in quarantine
            errors.append((place.device, lost))
    try:
        has_one = await _wait(jobs, is_any_enough)
    except asyncio.CancelledError:
        for job in jobs:
            if job.state is JobState.QUEUED:  # a load that has begun goes on
                job.cancel()
            job.add_done_callback(_error_of)  # marks its exception as retrieved, so that asyncio does not log it
        raise
    if is_any_enough and has_one:
        for job in jobs:
            job.add_done_callback(_error_of)
        return
    errors += [(device, error) for job, device in jobs.items() if (error := _error_of(job)) is not None]
    if errors:
        raise _first_of(errors, model)


async def _wait(jobs: Iterable[Job[None]], is_any_enough: bool) -> bool:
    """Wait for all jobs, or with `is_any_enough` until one has succeeded; returns whether one has."""
    pending, has_one = set(jobs), False
    when = asyncio.FIRST_COMPLETED if is_any_enough else asyncio.ALL_COMPLETED
    while pending and not (is_any_enough and has_one):
        # Not a task for each: a loader's SystemExit in one would end the event loop.
        done, pending = await asyncio.wait(pending, return_when=when)
        has_one = has_one or any(_error_of(job) is None for job in done)
    return has_one


def _error_of(job: Job[None]) -> BaseException | None:
    return asyncio.CancelledError() if job.cancelled() else job.exception()


def _first_of(errors: list[tuple[Device, BaseException]], model: Model[Any]) -> BaseException:
    """The first error, with a note for each of the others."""
    (_, first), *others = errors
    for device, error in others:
        if error is not first:  # one object may be raised everywhere; it has a note of each load
            add_note(first, f"director: {model.name} could not be loaded on {device.label} either: {describe(error)}")
    return first


def _targets(
    places: list[DeviceSlots], model: Model[Any], allowed: frozenset[int] | None, is_apart: bool
) -> list[tuple[DeviceSlots, frozenset[int]]]:
    everywhere = [(place, frozenset(slot.number for slot in place.slots)) for place in places if not place.is_gone]
    targets = [(place, numbers) for place, numbers in everywhere if allowed is None or numbers & allowed]
    if not (model.per_slot or is_apart):
        return targets
    return [(place, frozenset({number})) for place, numbers in targets for number in sorted(numbers)]
