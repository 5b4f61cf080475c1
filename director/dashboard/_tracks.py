"""What each slot did recently: a track of stretches, each one call or a run of short calls.

Written only by the recorder.

A picture of a minute has room for some hundred stretches on a line, so short calls that follow each other closely are
joined into one stretch with their number and their share of its time. That bounds memory and what is sent to a viewer,
at any rate of jobs. Running calls are not included, except those whose jobs have ended for their callers.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TypeAlias

WINDOW = 60.0  # seconds that viewers show
_SHORT = 0.05  # seconds; calls below are joined
_APART = 0.05  # seconds of rest that end a run of short calls
_LONGEST_RUN = 0.25  # seconds, so that the density of a run is shown with that resolution
_MOST = 40_000  # stretches on all tracks together
_NEVER = -float("inf")

Row: TypeAlias = "list[float | int | str | bool | None]"


class Stretch:
    """One call, or several short ones, on one slot."""

    __slots__ = ("begin", "busy", "end", "failed", "items", "job", "left", "longest", "name")

    def __init__(self, begin: float, end: float | None, job: int, name: str, failed: bool, left: bool) -> None:
        self.begin = begin
        self.end = end  # None: the call still runs
        self.busy = self.longest = 0.0 if end is None else end - begin  # seconds, of all its calls and of the longest
        self.items = 1  # jobs
        self.failed = int(failed)
        self.left = left  # the job ended for its caller before the call had ended
        self.job = job  # the latest of them
        self.name: str | None = name  # None: the jobs have several names

    def row(self) -> Row:
        """The columns as they are sent; `docs/reference/dashboard.md` names them."""
        end = None if self.end is None else round(self.end, 4)
        return [round(self.begin, 4), end, self.items, round(self.busy, 4), self.failed, self.left, self.job, self.name]

    def encoded(self, names: dict[str | None, str]) -> str:
        """The same as JSON; `names` caches encoded names.

        Only strings are made, because many lists would trigger the garbage

        collector.
        """
        if self.name not in names:
            names[self.name] = json.dumps(self.name)
        end = "null" if self.end is None else round(self.end, 4)
        left = "true" if self.left else "false"
        return (
            f"[{round(self.begin, 4)},{end},{self.items},{round(self.busy, 4)},{self.failed},{left},{self.job},"
            f"{names[self.name]}]"
        )


class Track:
    """The stretches of one slot, oldest first."""

    __slots__ = ("_began", "_jobs", "_length", "changed", "first", "stretches")

    def __init__(self, length: int) -> None:
        self._length = length
        self._began = _NEVER  # the latest call
        self._jobs = 0  # of it that have ended
        self.stretches: deque[Stretch] = deque()
        self.first = 0  # number of the oldest that is kept, counted from the beginning
        self.changed = 0  # number of the oldest that has changed since `changes`

    def add(self, begin: float, end: float, job: int, name: str, failed: bool) -> int:
        """A job has ended, whose call was from `begin` to `end`.

        Returns how many jobs of this call have ended so far.
        """
        if begin == self._began:
            last = self._count(failed)
            if last.end is None:
                _close(last, end)
            return self._jobs
        self._began, self._jobs = begin, 1
        last = self.stretches[-1] if self.stretches else None  # type: ignore[assignment]
        if last is None or not _takes(last, begin, end):
            self._append(Stretch(begin, end, job, name, failed, False))
            return 1
        _join(last, begin, end, job, name)
        last.failed += failed
        self._touch()
        return 1

    def leave(self, begin: float, job: int, name: str, failed: bool) -> int:
        """A job has ended for its caller, and its call still runs.

        Returns how many jobs of this call have ended so far.
        """
        if begin == self._began:
            self._count(failed).left = True
            return self._jobs
        self._began, self._jobs = begin, 1
        self._append(Stretch(begin, None, job, name, failed, True))
        return 1

    def end(self, begin: float, end: float) -> None:
        """A call has ended whose job had ended before."""
        for stretch in reversed(self.stretches):
            if stretch.begin < begin:
                return
            if stretch.begin == begin and stretch.end is None:
                _close(stretch, end)
                self._touch()
                return

    def busy(self, since: float, now: float) -> float:
        """Seconds that the slot was busy between `since` and `now`, without the running call."""
        total = 0.0
        for stretch in reversed(self.stretches):
            end = now if stretch.end is None else stretch.end
            if end <= since:
                break
            share = 1.0 if stretch.end is None or end <= stretch.begin else stretch.busy / (end - stretch.begin)
            total += share * max(0.0, min(end, now) - max(stretch.begin, since))
        return total

    def rows(self, since: float) -> tuple[int, list[Row]]:
        """The stretches that ended after `since`, and the number of the first of them."""
        kept = [stretch for stretch in self.stretches if stretch.end is None or stretch.end > since]
        return self.first + len(self.stretches) - len(kept), [stretch.row() for stretch in kept]

    def encoded(self, since: float) -> str:
        """`rows` as JSON."""
        names: dict[str | None, str] = {}
        kept = [stretch for stretch in self.stretches if stretch.end is None or stretch.end > since]
        rows = ",".join([stretch.encoded(names) for stretch in kept])
        return f"[{self.first + len(self.stretches) - len(kept)},[{rows}]]"

    def changes(self) -> tuple[int, list[Row]] | None:
        """What has changed since the last call, as `rows`."""
        following = self.first + len(self.stretches)
        if self.changed >= following:
            return None
        start = max(self.changed, self.first)
        self.changed = following
        return start, [self.stretches[number - self.first].row() for number in range(start, following)]

    def forget_changes(self) -> None:
        """Mark everything as sent."""
        self.changed = self.first + len(self.stretches)

    def _append(self, stretch: Stretch) -> None:
        if len(self.stretches) >= self._length:
            self.stretches.popleft()
            self.first += 1
        self.stretches.append(stretch)

    def _count(self, failed: bool) -> Stretch:
        """One more job of the latest call has ended; returns the stretch of the call."""
        self._jobs += 1
        last = self.stretches[-1]
        last.items += 1
        last.failed += failed
        self._touch()
        return last

    def _touch(self) -> None:
        """Mark the latest stretch as changed; `changed` is at most the number of the next stretch."""
        number = self.first + len(self.stretches) - 1
        if number < self.changed:
            self.changed = number


def _takes(run: Stretch, begin: float, end: float) -> bool:
    """Whether a call can be joined to a run of short ones."""
    if run.end is None or run.left:
        return False
    is_short = run.longest < _SHORT and end - begin < _SHORT
    return is_short and begin - run.end < _APART and end - run.begin < _LONGEST_RUN


def _join(run: Stretch, begin: float, end: float, job: int, name: str) -> None:
    run.end = end
    run.busy += end - begin
    run.items += 1
    run.job = job
    if end - begin > run.longest:
        run.longest = end - begin
    if name != run.name:
        run.name = None


def _close(stretch: Stretch, end: float) -> None:
    stretch.end = end
    stretch.busy = stretch.longest = end - stretch.begin


def make_tracks(count: int) -> list[Track]:
    """An empty track for each of `count` slots."""
    length = max(20, min(int(WINDOW / _LONGEST_RUN * 2.5), _MOST // max(1, count)))
    return [Track(length) for _ in range(count)]
