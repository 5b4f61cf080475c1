"""The story of a run: what a timeline has recorded, in order. Frozen; made on demand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director import Device
    from director.hooks import JobRecord


class Load(NamedTuple):
    """One load of a model on a device; `error` is what it raised."""

    model: str
    device: Device
    began: float
    ended: float
    error: str | None


class Incident(NamedTuple):
    """A device was taken out of service for a `reason`, or came back."""

    at: float
    device: Device
    reason: str | None


class MemorySample(NamedTuple):
    """Bytes in use at one time: of this process, and of each GPU, by its label."""

    at: float
    process: int | None
    devices: dict[str, int]


class Call(NamedTuple):
    """One call on one slot, for one job or for all jobs of a batch. `ended` is `None` while it runs."""

    slot: int
    began: float
    ended: float | None
    jobs: tuple[JobRecord, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """A period of a Director of which all jobs are known. Times are seconds of its clock.

    Args:
        name: The Director's, if it has one.
        since: The begin of the period: the start of the Director, or the end of the oldest job that is kept.
        until: The end of the period: when the Director closed, or now.
        wall: Seconds since 1970 at `since`.
        slots: The device of each slot.
        jobs: One record for each job, in order of submission.
        tries: Attempts that failed and were followed by another attempt of the same job.
        calls: In order of their beginnings.
        loads: Of models, in order of their ends.
        incidents: Of devices, in order.
        rejected: Jobs that were refused.
        forgotten: Jobs before `since` that were dropped.
        memory: Samples, in order.
    """

    name: str | None
    since: float
    until: float
    wall: float
    slots: tuple[Device, ...]
    jobs: tuple[JobRecord, ...]
    tries: tuple[JobRecord, ...]
    calls: tuple[Call, ...]
    loads: tuple[Load, ...]
    incidents: tuple[Incident, ...]
    rejected: int
    forgotten: int
    memory: tuple[MemorySample, ...]

    @property
    def seconds(self) -> float:
        """The length of the period."""
        return self.until - self.since

    @property
    def devices(self) -> tuple[Device, ...]:
        """Each device once, in the order of the slots."""
        return tuple(dict.fromkeys(self.slots))

    def within(self, call: Call) -> tuple[float, float]:
        """The part of a call that is in the period; empty if none is."""
        began = max(call.began, self.since)
        return began, max(began, self.until if call.ended is None else min(call.ended, self.until))


def in_order(records: Iterable[JobRecord]) -> tuple[tuple[JobRecord, ...], tuple[JobRecord, ...]]:
    """One record for each job, in order of submission, and the attempts that were not the last.

    A job's last record counts, with `error` and `settled` of the first.
    """
    jobs: dict[int, JobRecord] = {}
    tries = []
    for record in records:
        if record.state == "retried":
            tries.append(record)
            continue
        before = jobs.get(record.job)
        if before is not None and before.settled is not None:
            record = record._replace(error=before.error, settled=before.settled)
        jobs[record.job] = record
    return tuple(sorted(jobs.values(), key=attrgetter("submitted", "job"))), tuple(tries)


def calls_of(jobs: Iterable[JobRecord]) -> tuple[Call, ...]:
    """The calls of jobs and attempts: those that began at the same time on the same slot are a batch, one call."""
    together: defaultdict[tuple[float, int], list[JobRecord]] = defaultdict(list)
    for job in jobs:
        if job.started is not None and job.slot is not None:
            together[job.started, job.slot].append(job)
    return tuple(
        Call(slot, began, max((job.ended for job in batch if job.ended is not None), default=None), tuple(batch))
        for (began, slot), batch in sorted(together.items())
    )
