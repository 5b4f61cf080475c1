"""The settings of a run: retries, time limits and ``--halt``; and what a flow gives and asks."""

from __future__ import annotations

import argparse
import re
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from director._untrusted.numbers import MOST_SECONDS, number_in
from director.errors import DeviceError, JobAborted, JobTimeout, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director import Device, Job
    from director.cli._run.input.items import Item
    from director.cli._run.output.saved import Template

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


_GRAMMAR = re.compile(
    r"(?P<when>soon|now)(?:,(?P<cause>fail|success|done)=(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<percent>%)?)?"
    r"|(?P<bare>[1-9][0-9]*)"
)
_FORMS = "never, soon, now, soon,fail=N, now,done=N%, N; the causes are fail, success and done"
_LEAST = 20  # items before a share of what is done means anything


@dataclass(frozen=True, slots=True)
class Halt:
    """When a run is ended.

    Args:
        when: ``"never"``: all items are tried. ``"soon"``: no new item starts, what runs is finished. ``"now"``:
            running items are abandoned.
        cause: What is counted: failures, successes or both.
        number: How many, or how many percent of all items.
        is_percent: Whether `number` is a percentage.
    """

    when: Literal["never", "soon", "now"] = "never"
    cause: Literal["fail", "success", "done"] = "fail"
    number: float = 1
    is_percent: bool = False

    def reached(self, failed: int, succeeded: int, total: int | None = None) -> bool:
        """Whether these counts are enough.

        A percentage is one of `total`. If that is not known, it is one of the items that are done, once there are
        enough of them: 20, or as many as one of them is less than the percentage of.
        """
        if self.when == "never":
            return False
        done = failed + succeeded
        counted = {"fail": failed, "success": succeeded, "done": done}[self.cause]
        if not self.is_percent:
            return counted >= self.number
        if total is None:
            return self.cause != "done" and done >= max(_LEAST, 100 / self.number) and self._share(counted, done)
        return total > 0 and self._share(counted, total)

    def _share(self, counted: int, of: int) -> bool:
        return counted * 100 >= self.number * of


def parse_halt(text: str) -> Halt:
    """``never``, ``soon``, ``now``, ``now,fail=3``, ``soon,fail=2%``, ``soon,done=100``, or ``3`` for ``soon,fail=3``.

    Raises:
        argparse.ArgumentTypeError: `text` is none of these.
    """
    if text == "never":
        return Halt()
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of: {_FORMS}")
    if match["bare"]:
        return Halt("soon", "fail", number_in(match["bare"]))
    when: Literal["soon", "now"] = "now" if match["when"] == "now" else "soon"
    if match["number"] is None:
        return Halt(when)
    is_percent = match["percent"] is not None
    number = float(match["number"]) if is_percent else _whole(match["number"], text)
    if number <= 0 or (is_percent and number > 100):
        raise argparse.ArgumentTypeError(f"{text!r}: the number is above 0, a percentage at most 100")
    cause: Literal["fail", "success", "done"] = match["cause"]  # type: ignore[assignment]  # by the grammar
    return Halt(when, cause, number, is_percent)


def _whole(number: str, text: str) -> int:
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: a number of items is whole")
    return number_in(number)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item whose call has ended.

    Args:
        item: The item.
        error: Its error; `None` for a success.
        device: Label of the device; `None` if it never ran.
        seconds: How long it ran; `None` if it never ran or its call still runs.
    """

    item: Item
    error: BaseException | None = None
    device: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a run.

    Args:
        window: Most items between input and output.
        ordered: Lines in the order of the input; else as the items are done.
        halt: When the run ends before the input does.
        traced: Whether error records contain tracebacks.
        apart: The calls are made in other processes, or of many items each, and can't check for a halt: only the event
            loop halts the run.
        retry: Which failed items are tried again.
        limit: How long an item may run.
        ended_apart: The processes that make the calls end at that limit; else the Director fails the item.
        slots: How many items run at once.
        save: Results are saved to files of these names, and the records hold the names; `None`: they hold the results.
    """

    window: int
    ordered: bool = False
    halt: Halt = field(default_factory=Halt)
    traced: bool = False
    apart: bool = False
    retry: RetryRule = field(default_factory=RetryRule)
    limit: TimeLimit = field(default_factory=TimeLimit)
    ended_apart: bool = False
    slots: int = 1
    save: Template | None = None


class Jobs(Protocol):
    """Submits jobs to a Director."""

    def submit(
        self, function: Callable[[Any, Any], Any], value: Any, timeout: float | None, avoided: Sequence[Device]
    ) -> Job[Any]:
        """Queue a call.

        Args:
            function: Called with the resource and `value`.
            value: Of the item.
            timeout: Seconds it may run.
            avoided: Devices on which it has failed; another one is taken if there is one.
        """

    def slots_of(self, device: str) -> int:
        """How many slots a device has."""
