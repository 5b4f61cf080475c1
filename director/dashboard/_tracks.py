"""What each slot did lately: a track of stretches, each one call or a run of short ones. Written by the recorder alone.

A picture of a minute has room for some hundred stretches on a line, so short calls that follow each other closely are
joined into one stretch with their number and their share of its time. That bounds memory and what travels to a viewer,
at any rate of jobs.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

WINDOW = 60.0  # seconds that viewers show
_SHORT = 0.05  # seconds; calls below are joined
_APART = 0.05  # seconds of rest that end a run of short calls
_LONGEST_RUN = 0.25  # seconds, so that the density of a run is that of a moment
_MOST = 40_000  # stretches on all tracks together

Row: TypeAlias = "list[float | int | str | bool | None]"


class Stretch:
    """One call, or several short ones, on one slot."""

    __slots__ = ("begin", "busy", "end", "failed", "items", "job", "left", "longest", "name", "open")

    def __init__(self, begin: float, job: int, name: str) -> None:
        self.begin = begin
        self.end: float | None = None
        self.busy = 0.0  # seconds, once it has ended
        self.longest = 0.0  # seconds, of its calls
        self.items = 1  # jobs
        self.open = 1  # of them, those that are not over
        self.failed = 0
        self.left = False  # over for its callers, while the thread is still in the call
        self.job = job  # the latest of them
        self.name: str | None = name  # None: of several names

    def row(self) -> Row:
        """As it travels; `docs/reference/dashboard.md` names the columns."""
        end = None if self.end is None else round(self.end, 4)
        return [round(self.begin, 4), end, self.items, round(self.busy, 4), self.failed, self.left, self.job, self.name]


class Track:
    """The stretches of one slot, oldest first.

    Args:
        length: Most stretches that are kept.
    """

    __slots__ = ("_length", "changed", "first", "stretches")

    def __init__(self, length: int) -> None:
        self._length = length
        self.stretches: deque[Stretch] = deque()
        self.first = 0  # number of the oldest that is kept, counted from the beginning
        self.changed = 0  # number of the oldest that has changed since `changes`

    def begin(self, at: float, job: int, name: str) -> None:
        """A job began at the moment `at`; one that begins with the open stretch is of the same call."""
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.end is None:
            if last.begin == at:
                last.items += 1
                last.open += 1
                return
            self._close(last, at)  # the call that was left behind is over
            self._touch()
        if len(self.stretches) >= self._length:
            self.stretches.popleft()
            self.first += 1
        self.stretches.append(Stretch(at, job, name))

    def end(self, began: float, ran: float, failed: bool) -> None:
        """A job that began at `began` has left the slot after `ran` seconds."""
        last = self.stretches[-1] if self.stretches else None
        if last is None or last.end is not None or last.begin != began:
            return  # ended by what came after it
        last.failed += failed
        last.open -= 1
        if last.open <= 0:
            self._close(last, began + ran)
        self._touch()

    def leave(self, began: float, failed: bool) -> None:
        """A job that began at `began` is over for its caller, and its call goes on."""
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.end is None and last.begin == began:
            last.failed += failed
            last.left = True
            self._touch()

    def rest(self, at: float) -> None:
        """The worker has left the slot."""
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.end is None:
            self._close(last, at)
            self._touch()

    def busy(self, since: float, now: float) -> float:
        """Seconds that the slot was busy between `since` and `now`."""
        total = 0.0
        for stretch in reversed(self.stretches):
            end = now if stretch.end is None else stretch.end
            if end <= since:
                break
            share = 1.0 if stretch.end is None or end <= stretch.begin else stretch.busy / (end - stretch.begin)
            total += share * max(0.0, min(end, now) - max(stretch.begin, since))
        return total

    def rows(self, since: float) -> tuple[int, list[Row]]:
        """What ended after `since`, and the number of the first of it."""
        kept = [stretch for stretch in self.stretches if stretch.end is None or stretch.end > since]
        return self.first + len(self.stretches) - len(kept), [stretch.row() for stretch in kept]

    def changes(self) -> tuple[int, list[Row]] | None:
        """What has changed since this was asked last, as `rows`; what had a higher number before is no more."""
        following = self.first + len(self.stretches)
        if self.changed >= following:
            return None
        start = max(self.changed, self.first)
        self.changed = following
        return start, [self.stretches[number - self.first].row() for number in range(start, following)]

    def _close(self, last: Stretch, at: float) -> None:
        last.end = at if at > last.begin else last.begin
        last.busy = last.longest = last.end - last.begin
        before = self.stretches[-2] if len(self.stretches) > 1 else None
        if before is not None and _belongs(before, last):
            _join(before, last)
            self.stretches.pop()

    def _touch(self) -> None:
        """The latest stretch has changed. (One that is appended has the number that `changed` has at most.)."""
        number = self.first + len(self.stretches) - 1
        if number < self.changed:
            self.changed = number


def _belongs(run: Stretch, call: Stretch) -> bool:
    """Whether a call that has just ended is one more of a run of short ones."""
    if run.end is None or call.end is None or run.left or call.left:
        return False
    is_short = run.longest < _SHORT and call.longest < _SHORT
    return is_short and call.begin - run.end < _APART and call.end - run.begin < _LONGEST_RUN


def _join(run: Stretch, call: Stretch) -> None:
    run.end = call.end
    run.busy += call.busy
    if call.longest > run.longest:
        run.longest = call.longest
    run.items += call.items
    run.failed += call.failed
    run.job = call.job
    run.name = call.name if call.name == run.name else None


def make_tracks(count: int) -> list[Track]:
    """An empty track for each of `count` slots."""
    length = max(20, min(int(WINDOW / _LONGEST_RUN * 2.5), _MOST // max(1, count)))
    return [Track(length) for _ in range(count)]
