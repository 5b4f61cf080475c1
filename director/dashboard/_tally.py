"""Counts of what happened, by the second, for the last minutes. Written only by the recorder, on the event loop.

Waits and run times are kept as histograms whose bins grow by a ninth, so a percentile over any number of jobs costs the
same and is off by 5 % at most; memory is bounded by the number of seconds, and of functions and tenants in a second.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from math import log2
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Histogram: TypeAlias = dict[int, int]

SECONDS = 300  # of history
RECENT = 10  # seconds that rates and percentiles are taken over, in the header and at each point of a chart
MINUTE = 60  # seconds that functions and tenants are counted over
OTHER = "other"  # the name for the functions, or tenants, beyond the most that are told apart
_MOST_GROUPS = 50  # functions, and tenants, that are told apart within a second
_FINEST = 1e-6  # seconds; what is shorter counts as nothing
_BINS_PER_OCTAVE = 8


class Group:
    """What became of the jobs of one function or one tenant within one second, or several."""

    __slots__ = ("ends", "runs", "waits")

    def __init__(self) -> None:
        self.ends = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self.waits: Histogram = {}
        self.runs: Histogram = {}

    def add(self, other: Group) -> None:
        """Add what another one has counted."""
        for kind, count in other.ends.items():
            self.ends[kind] += count
        _merge(self.waits, other.waits)
        _merge(self.runs, other.runs)

    @property
    def jobs(self) -> int:
        """How many have ended."""
        return sum(self.ends.values())


Groups: TypeAlias = dict[str, Group]


def _group_of(groups: Groups, name: str) -> Group:
    """The group of a name; that of `OTHER` where there are as many as may be told apart."""
    group = groups.get(name)
    if group is None:
        name = name if len(groups) < _MOST_GROUPS else OTHER
        group = groups[name] = groups.get(name) or Group()
    return group


def largest(many: Iterable[Groups], most: int) -> Groups:
    """The groups of several seconds together: the `most` with the most jobs, the others as `OTHER`, which is last."""
    merged: Groups = {}
    for groups in many:
        for name, group in groups.items():
            merged.setdefault(name, Group()).add(group)
    rest = merged.pop(OTHER, None)
    names = sorted(merged, key=lambda name: (-merged[name].jobs, name))
    found = {name: merged[name] for name in names[:most]}
    others = [merged[name] for name in names[most:]] + ([] if rest is None else [rest])
    if others:
        found[OTHER] = Group()
        for group in others:
            found[OTHER].add(group)
    return found


class Recent(NamedTuple):
    """Rates per second, and the median and the 99th percentile, of the `RECENT` seconds before some time."""

    succeeded: float = 0.0
    failed: float = 0.0
    cancelled: float = 0.0
    rejected: float = 0.0
    waited: tuple[float, float] | None = None
    ran: tuple[float, float] | None = None


class Second:
    """What happened within one second, and the last counts of waiting and running jobs in it.

    `recent` is computed when it is over.
    """

    __slots__ = (
        "at", "calls", "ends", "functions", "queued", "recent", "rejected", "running", "runs", "tenants", "waits",
    )  # fmt: skip

    def __init__(self, at: int, queued: int, running: int) -> None:
        self.at = at
        self.ends = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self.rejected = 0
        self.queued = queued
        self.running = running
        self.waits: Histogram = {}
        self.runs: Histogram = {}
        self.calls: dict[int, int] = {}  # by the number of their jobs
        self.functions: Groups = {}
        self.tenants: Groups = {}
        self.recent = Recent()

    def groups_of(self, function: str, tenant: str | None) -> list[Group]:
        """Where a job is counted: with its function, and with its tenant if it has one."""
        mine = _group_of(self.functions, function)
        return [mine] if tenant is None else [mine, _group_of(self.tenants, tenant)]

    def count_call(self, jobs: int) -> None:
        """One more job of a call has ended, `jobs` so far: the call was counted with one job less before."""
        calls = self.calls
        calls[jobs] = calls.get(jobs, 0) + 1
        if jobs > 1:
            calls[jobs - 1] = calls.get(jobs - 1, 0) - 1


class Tally:
    """The last `SECONDS` seconds.

    Args:
        now: The current time.
        count_jobs: Returns how many jobs wait and run, and how many were refused in all; called when a second is over.
    """

    def __init__(self, now: float, count_jobs: Callable[[], tuple[int, int, int]]) -> None:
        self._count_jobs = count_jobs
        self._refused = 0  # jobs that are counted
        self._seconds: deque[Second] = deque([Second(math.floor(now), 0, 0)], maxlen=SECONDS)

    def at(self, moment: float) -> Second:
        """The second that `moment` is in; the latest one if it is earlier, because `Event.at` may go back a little."""
        last = self._seconds[-1]
        if moment < last.at + 1:
            return last
        last.queued, last.running, refused = self._count_jobs()
        self._add_refused(last, refused)
        second = math.floor(moment)
        for missed in range(max(last.at + 1, second - SECONDS), second + 1):
            self._close()
            self._seconds.append(Second(missed, last.queued, last.running))
        return self._seconds[-1]

    def begin_late(self, refused: int) -> None:
        """So many jobs were refused before the first second."""
        self._refused = refused

    def count_refused(self, total: int, moment: float) -> None:
        """So many jobs have been refused by now, in all: of some there is no event, because another process did it."""
        self._add_refused(self.at(moment), total)

    def _add_refused(self, second: Second, total: int) -> None:
        if total > self._refused:
            second.rejected += total - self._refused
            self._refused = total

    def recent(self, now: float) -> Recent:
        """Rates and percentiles of the last whole seconds: those of the latest point of the charts."""
        seconds = self.last(1, now)
        return seconds[0].recent if seconds else Recent()

    def minute(self, now: float) -> tuple[list[Second], float]:
        """The last `MINUTE` seconds with the current one, oldest first, and how many seconds they are until `now`."""
        running = self.at(now)
        seconds = [second for second in self._seconds if second.at > running.at - MINUTE]
        return seconds, max(1.0, now - seconds[0].at)

    def _close(self) -> None:
        """The latest second is over."""
        over = self._seconds[-1]
        latest = [second for second in islice(reversed(self._seconds), RECENT) if second.at > over.at - RECENT]
        succeeded, failed, cancelled = (
            sum(second.ends[kind] for second in latest) / len(latest) for kind in ("succeeded", "failed", "cancelled")
        )
        over.recent = Recent(
            succeeded,
            failed,
            cancelled,
            sum(second.rejected for second in latest) / len(latest),
            _median_and_99th([second.waits for second in latest]),
            _median_and_99th([second.runs for second in latest]),
        )
        if len(self._seconds) >= MINUTE:
            old = self._seconds[-MINUTE]
            old.functions, old.tenants = {}, {}

    def last(self, count: int, now: float) -> list[Second]:
        """The `count` latest whole seconds, oldest first; fewer in the beginning."""
        running = self.at(now)
        return [second for second in self._seconds if running.at - count <= second.at < running.at]


def note(seconds: float, *histograms: Histogram) -> None:
    """Count a duration; one below the resolution falls into bin 0."""
    number = 1 + int(_BINS_PER_OCTAVE * log2(seconds / _FINEST)) if seconds > _FINEST else 0
    for histogram in histograms:
        histogram[number] = histogram.get(number, 0) + 1


def seconds_of(number: int) -> float:
    """The middle of a bin."""
    return 0.0 if number == 0 else float(_FINEST * 2 ** ((number - 0.5) / _BINS_PER_OCTAVE))


def quantiles(histograms: Iterable[Histogram], *shares: float) -> list[float] | None:
    """Durations that these shares of all that was counted stay below; `None` if nothing was."""
    merged: Histogram = {}
    for histogram in histograms:
        _merge(merged, histogram)
    total = sum(merged.values())
    return [seconds_of(_bin_at(merged, share * total)) for share in shares] if total else None


def _median_and_99th(histograms: Iterable[Histogram]) -> tuple[float, float] | None:
    found = quantiles(histograms, 0.5, 0.99)
    return None if found is None else (found[0], found[1])


def _merge(into: Histogram, histogram: Histogram) -> None:
    for number, count in histogram.items():
        into[number] = into.get(number, 0) + count


def _bin_at(merged: Histogram, rank: float) -> int:
    counted = 0
    for number in sorted(merged):
        counted += merged[number]
        if counted >= rank:
            break
    return number
