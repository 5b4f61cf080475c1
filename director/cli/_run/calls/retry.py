"""Which failures are tried again, when, and how long an item may run."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from typing import Literal, TypeAlias

from director._untrusted.numbers import MOST_SECONDS
from director.errors import DeviceError, JobAborted, JobTimeout, WorkerDied

FailureKind: TypeAlias = Literal["died", "oom", "timeout", "error"]
KINDS: tuple[FailureKind, ...] = ("died", "oom", "timeout", "error")
DEFAULT: frozenset[FailureKind] = frozenset(("died", "oom", "timeout"))
_LONGEST_PAUSE = 300.0  # s
_ENOUGH = 10  # successes before a median means anything


@dataclass(frozen=True, slots=True)
class RetryRule:
    """Which failed items are tried again.

    Args:
        retries: Further attempts.
        kinds: Of the failures after which there is one.
        backoff: Seconds before the second attempt; doubled before each further one.
    """

    retries: int = 0
    kinds: frozenset[FailureKind] = DEFAULT
    backoff: float = 0.0

    def pause(self, error: BaseException, attempts: int) -> float | None:
        """Seconds until the next attempt, `None` for none, when `attempts` have failed, the last one with `error`."""
        if attempts > self.retries or kind_of(error) not in self.kinds:
            return None
        return min(_LONGEST_PAUSE, self.backoff * 2.0 ** min(attempts - 1, 32))


def kind_of(error: BaseException) -> FailureKind:
    """``oom``: the memory of the device was full. ``died``: its process or device was lost. ``error``: all others."""
    if isinstance(error, JobTimeout):
        return "timeout"
    if isinstance(error, (WorkerDied, DeviceError, JobAborted)):
        return "died"
    from director._devices.device_errors import fault_of  # imported late: not for the help

    fault = fault_of(error)
    if fault is None:
        return "error"
    return "oom" if fault.kind == "memory" else "died"


def parse_kinds(text: str) -> frozenset[FailureKind]:
    """``died,oom``.

    Raises:
        argparse.ArgumentTypeError: A word is no kind of failure.
    """
    return frozenset(_kind(word.strip()) for word in text.split(","))


def _kind(word: str) -> FailureKind:
    for kind in KINDS:
        if word == kind:
            return kind
    raise argparse.ArgumentTypeError(f"{word!r} is none of: {', '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long an item may run.

    Args:
        seconds: That long; `None`: there is no such limit.
        percent: That share of the median of the items that succeeded, once there are 10; `None`: there is no such
            limit. With both, the shorter one holds.
    """

    seconds: float | None = None
    percent: float | None = None


def parse_limit(text: str) -> TimeLimit:
    """``30`` seconds, ``300%`` of the median, or both: ``300%,60``.

    Raises:
        argparse.ArgumentTypeError: `text` is neither.
    """
    first, comma, second = text.partition(",")
    percent = first if first.endswith("%") else None
    seconds = second if comma else None if percent else first
    limit = TimeLimit(
        None if seconds is None else _number(seconds), None if percent is None else _number(percent.removesuffix("%"))
    )
    if (
        (comma and percent is None)
        or not (limit.percent is None or 100 < limit.percent <= 1e6)
        or not (limit.seconds is None or 1e-9 <= limit.seconds <= MOST_SECONDS)
    ):
        raise argparse.ArgumentTypeError(
            f"{text[:60]!r} is no number of seconds from 1e-09 to {MOST_SECONDS:g}, "
            "nor a percentage of the median above 100, nor both: 300%,60"
        )
    return limit


def _number(text: str) -> float:
    try:
        return float(text) if text.isascii() else float("nan")
    except ValueError:
        return float("nan")


class Median:
    """The median time of the items that succeeded, from the last 1,000 of them."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._next = 0

    def add(self, seconds: float) -> None:
        """One more has succeeded."""
        if len(self._times) < 1000:
            self._times.append(seconds)
        else:
            self._times[self._next] = seconds
            self._next = (self._next + 1) % 1000

    def read(self) -> float | None:
        """The median; `None` while there are too few."""
        return statistics.median(self._times) if len(self._times) >= _ENOUGH else None


def parse_batch_size(text: str) -> int:
    """``16``; 0 for ``auto``.

    Raises:
        argparse.ArgumentTypeError: `text` is neither.
    """
    if text == "auto":
        return 0
    if text.isascii() and text.isdecimal() and 0 < len(text) < 7 and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is neither a whole number from 1 to 999999 nor auto")
