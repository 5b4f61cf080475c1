"""The statistics of a story. Pure functions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from director._format import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from director import Device
    from director.hooks import JobRecord
    from director.timeline._story import Story


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of durations in seconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Share:
    """How some slots spent their time.

    Args:
        slots: How many.
        calls: Calls that began or ended in the stretch.
        busy: Share of their time that they were in a call.
        lost: Share that they were idle while jobs waited.
    """

    slots: int
    calls: int
    busy: float
    lost: float

    @property
    def idle(self) -> float:
        """Share of their time that they were in no call."""
        return 1.0 - self.busy


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of a story.

    Args:
        states: Jobs by what became of them.
        per_second: Jobs that succeeded, per second of the stretch.
        waits: Of the jobs that started.
        runs: Of the jobs whose calls have ended.
        lags: From the end of a call until the event loop handled it.
        all: The time of all slots.
        devices: The same for each device.
    """

    states: dict[str, int]
    per_second: float
    waits: Distribution | None
    runs: Distribution | None
    lags: Distribution | None
    all: Share
    devices: dict[Device, Share]


def figures(story: Story) -> Figures:
    """Compute them."""
    jobs = story.jobs
    states = Counter(job.state for job in jobs)
    slots = slot_times(story)
    by_device = {device: [slots[n] for n, its in enumerate(story.slots) if its == device] for device in story.devices}
    return Figures(
        dict(states),
        states["succeeded"] / story.seconds if story.seconds > 0 else 0.0,
        distribution(job.started - job.submitted for job in jobs if job.started is not None),
        distribution(job.ended - job.started for job in jobs if job.started is not None and job.ended is not None),
        distribution(lag for job in jobs if (lag := _lag(job)) is not None),
        _share(slots, story.seconds),
        {device: _share(its, story.seconds) for device, its in by_device.items()},
    )


def distribution(durations: Iterable[float]) -> Distribution | None:
    """Their distribution; `None` for no durations."""
    ordered = sorted(max(0.0, seconds) for seconds in durations)
    if not ordered:
        return None
    p50, p90, p99 = (quantile(ordered, share) for share in (0.5, 0.9, 0.99))
    return Distribution(len(ordered), math.fsum(ordered) / len(ordered), p50, p90, p99, ordered[-1])


def queue_depth(story: Story) -> Iterator[tuple[float, int]]:
    """How many jobs wait from which time on; one step for each change."""
    changes: defaultdict[float, int] = defaultdict(int)
    for each in story.tries:  # it left the queue and was put back
        changes[each.started or each.submitted] -= 1
        changes[each.ended or each.submitted] += 1
    for job in story.jobs:
        changes[job.submitted] += 1
        left = job.ended if job.started is None else job.started
        if left is not None:
            changes[left] -= 1
    waiting = 0
    for at in sorted(changes):
        if changes[at]:
            waiting += changes[at]
            yield at, waiting


def _lag(job: JobRecord) -> float | None:
    """Seconds that its outcome waited for the event loop; `None` if the job had ended before its call."""
    if job.started is None or job.ended is None or job.settled is None or job.settled < job.ended:
        return None
    return job.settled - job.ended


def _share(slots: Sequence[SlotTime], seconds: float) -> Share:
    whole = len(slots) * seconds
    calls = sum(slot.calls for slot in slots)
    busy, lost = math.fsum(slot.busy for slot in slots), math.fsum(slot.lost for slot in slots)
    return Share(len(slots), calls, busy / whole if whole else 0.0, lost / whole if whole else 0.0)


class SlotTime(NamedTuple):
    """Calls, and seconds busy and lost, of one slot."""

    calls: int
    busy: float
    lost: float


def slot_times(story: Story) -> list[SlotTime]:
    """How each slot spent its time.

    A slot loses time while it is idle and a job waits; with n idle slots and m < n waiting jobs, m / n of it. Which
    slots a job may use is ignored, so a job that waits for one busy device counts as a loss of the others.
    """
    calls, busy = [0] * len(story.slots), [0.0] * len(story.slots)
    sweep = _Sweep(story)
    for call in story.calls:
        began, ended = story.within(call)
        calls[call.slot] += 1
        busy[call.slot] += ended - began
    return [SlotTime(*row) for row in zip(calls, busy, sweep.run(), strict=True)]


class _Sweep:
    """Goes through the changes of a story in order, adding up the time that idle slots lose."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._lost_so_far = 0.0  # by a slot that was idle from the beginning
        self._lost = [0.0] * len(story.slots)
        self._idle_since: list[float | None] = [0.0] * len(story.slots)  # value of `_lost_so_far`; None while busy
        self._idle = len(story.slots)
        self._waiting = 0

    def run(self) -> list[float]:
        """Seconds that each slot lost."""
        last = self._story.since
        for at, slot, change in sorted(self._changes()):
            now = min(max(at, last), self._story.until)
            if self._idle and self._waiting > 0:
                self._lost_so_far += (now - last) * min(self._waiting, self._idle) / self._idle
            last = now
            self._apply(slot, change)
        return [
            lost if since is None else lost + self._lost_so_far - since
            for lost, since in zip(self._lost, self._idle_since, strict=True)
        ]

    def _changes(self) -> Iterator[tuple[float, int, int]]:
        """Time, slot (-1: the queue) and change: -1 a slot is idle again, 1 it is busy, or jobs that wait more."""
        story = self._story
        for call in story.calls:
            began, ended = story.within(call)
            if ended > began:
                yield began, call.slot, 1
                yield ended, call.slot, -1
        before = 0
        for at, waiting in queue_depth(story):
            yield at, -1, waiting - before
            before = waiting
        yield story.until, -1, 0

    def _apply(self, slot: int, change: int) -> None:
        if slot < 0:
            self._waiting += change
            return
        since = self._idle_since[slot]
        if change > 0 and since is not None:
            self._lost[slot] += self._lost_so_far - since
            self._idle_since[slot] = None
            self._idle -= 1
        elif change < 0 and since is None:
            self._idle_since[slot] = self._lost_so_far
            self._idle += 1
