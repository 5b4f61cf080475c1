"""Computes progress from the tally and the Director's stats; views only draw it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from director import _format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director import Director
    from director.cli._run.progress.tally import Tally

    Running: TypeAlias = Callable[[], Iterable[tuple[float, int]]]

SAMPLE = 0.2  # s between two samples
_MEMORY = 75  # samples, 15 s: long enough for a steady rate, short enough to follow changes


@dataclass(frozen=True, slots=True)
class LaneReading:
    """One device.

    Args:
        device: Its label.
        busy: Share of its slots that recently ran items, 0 to 1.
        items: Items done on it.
        mean: Mean seconds of an item; 0 before the first.
    """

    device: str
    busy: float
    items: int
    mean: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Progress at one time.

    Args:
        elapsed: Seconds since the first item could begin.
        done: Items with a record.
        failed: Those with an error.
        total: All items of this run, `None` while unknown.
        rate: Recent items per second.
        remaining: Seconds until the end; `None` while unknown.
        lanes: The devices.
        left_out: Items of the input that this run is not about.
    """

    elapsed: float
    done: int
    failed: int
    total: int | None
    rate: float
    remaining: float | None
    lanes: tuple[LaneReading, ...]
    left_out: int = 0


class Meter:
    """Takes samples, and readings from them.

    How busy a device is is sampled from its slots: its busy seconds grow only when an item ends, which for items of a
    minute is too late.
    """

    def __init__(self, director: Director, tally: Tally, running: Running = tuple) -> None:
        self._director = director
        self._tally = tally
        self._start = time.perf_counter()
        self._stop: float | None = None
        self._eta = Eta(running)
        self._done: deque[tuple[float, int]] = deque([(self._start, 0)], maxlen=_MEMORY)
        self._busy: defaultdict[str, deque[float]] = defaultdict(partial(deque, maxlen=_MEMORY))  # devices may join

    @property
    def elapsed(self) -> float:
        """Seconds from when it was made until now, or until it was stopped."""
        return (time.perf_counter() if self._stop is None else self._stop) - self._start

    def stop(self) -> None:
        """Stop the time."""
        self._stop = time.perf_counter()

    def sample(self) -> None:
        """Take one sample."""
        now, tally = time.perf_counter(), self._tally
        self._done.append((now, tally.done))
        self._eta.sample(now, tally)
        for stats in self._director.stats().devices:
            self._busy[stats.device.label].append(stats.busy / stats.slots)

    def read(self) -> Reading:
        """Progress as of the last sample."""
        tally, left_out = self._tally, self._tally.counts.left_out
        remaining, rate = self._eta.read(tally), self._rate()
        return Reading(self.elapsed, tally.done, tally.failed, tally.to_do, rate, remaining, self._lanes(), left_out)

    def _rate(self) -> float:
        (then, before), (now, done) = self._done[0], self._done[-1]
        return (done - before) / (now - then) if now > then else 0.0

    def _lanes(self) -> tuple[LaneReading, ...]:
        return tuple(
            LaneReading(device, sum(busy) / len(busy) if (busy := self._busy[device]) else 0.0, lane.items, lane.mean)
            for device, lane in self._tally.lanes.items()
        )


def time_left(reading: Reading) -> str | None:
    """``0:12:40 left (~14:05)``, by the clock of the machine; `None` while unknown."""
    if reading.remaining is None:
        return None
    seconds = round(reading.remaining)
    left = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
    if seconds < 60:
        return left
    end = time.localtime(time.time() + seconds)
    return f"{left} (~{time.strftime('%H:%M' if seconds < 86_400 else '%a %H:%M', end)})"


def how_far(reading: Reading) -> str:
    """``400 of 1,797 (22.3 %)``, or ``400 done`` if the total is unknown."""
    if reading.total is None:
        return f"{_format.count(reading.done)} done"
    share = reading.done / reading.total if reading.total else 1.0
    return f"{_format.count(reading.done)} of {_format.count(reading.total)} ({_format.percent(share)})"


_SPAN = 60.0  # s: long enough for a steady rate, short enough to follow changes
_MOST = 0.95  # of an item that still runs


class _Sample(NamedTuple):
    """Items and bytes that were done at a time; of those that ran the shares that were."""

    time: float
    items: float
    size: float


class Eta:
    """Estimates the rest of a run from its rate of the last minute.

    What is done and what is left is weighed by how long calls take: by the item and, as far as larger ones take
    longer and all sizes are known, by the byte. Calls that run count as parts of items, by their age: else items of
    minutes would have no rate between two ends. Items that an earlier run has done are no part of the rate.

    Args:
        running: Of each call that runs, for how many seconds, and the bytes of its item.
    """

    def __init__(self, running: Running = tuple) -> None:
        self._running = running
        self._samples: deque[_Sample] = deque()

    def sample(self, now: float, tally: Tally) -> None:
        """Take a sample at `now`, by a clock that is never set back."""
        each, byte = tally.cost.line()
        items, size = float(tally.done), float(tally.bytes_done)
        for age, bytes_of_item in self._running():
            if (expected := each + byte * bytes_of_item) > 0.0:
                share = min(_MOST, age / expected)
                items += share
                size += share * bytes_of_item
        self._samples.append(_Sample(now, items, size))
        while len(self._samples) > 2 and now - self._samples[1].time >= _SPAN:
            self._samples.popleft()

    def read(self, tally: Tally) -> float | None:
        """Seconds until all is done; `None` while the number of items or the rate is not known."""
        to_do, bytes_to_do = tally.to_do, tally.bytes_to_do
        if to_do is None or len(self._samples) < 2 or not tally.done:
            return None
        first, last = self._samples[0], self._samples[-1]
        each, byte = (1.0, 0.0) if bytes_to_do is None else tally.cost.line()
        if byte == 0.0:
            each = 1.0  # all items weigh the same
        done = each * (last.items - first.items) + byte * (last.size - first.size)
        left = each * (to_do - last.items) + byte * ((bytes_to_do or 0) - last.size)
        if last.time <= first.time or done <= 0.0:
            return None
        return max(0.0, left) * (last.time - first.time) / done
