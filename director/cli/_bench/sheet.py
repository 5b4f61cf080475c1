"""The measurements of an experiment: interleaved rounds of all contenders, and samples by contender and figure."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from director.cli._console import print_tick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")


class Effort(Enum):
    """How much work an experiment does."""

    FULL = "full"
    QUICK = "quick"

    def pick(self, full: T, quick: T) -> T:
        """`full` in a full run, `quick` in a quick one."""
        return full if self is Effort.FULL else quick


def turns(contenders: Sequence[T], rounds: int) -> Iterator[T]:
    """Each contender once a round, the order rotated by one from round to round, garbage collected before each turn.

    The collector stays enabled during the work: garbage of a contender is part of its cost.
    """
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            gc.collect()
            yield contender
            print_tick()


def bare_time(job: Callable[[], object], times: int) -> float:
    """Seconds that one call takes alone, without any scheduler: the median of `times` calls in a row."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter_ns()
        job()
        seconds.append((time.perf_counter_ns() - began) / 1e9)
    return median(seconds)


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender's samples of one figure, one sample for each round, in the order of the rounds."""

    contender: str
    figure: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return median(self.samples)

    @property
    def low(self) -> float:
        """The smallest sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The largest sample."""
        return max(self.samples)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How one cell compares with another: the ratio of the medians, and the range of the ratios round by round."""

    value: float
    low: float
    high: float


def ratio(cell: Cell, reference: Cell) -> Ratio | None:
    """`cell` divided by `reference`; `None` if the reference is not above zero."""
    if reference.median <= 0:
        return None
    value = cell.median / reference.median
    by_round = [a / b for a, b in zip(cell.samples, reference.samples, strict=False) if b > 0]
    return Ratio(value, min([value, *by_round]), max([value, *by_round]))


class Sheet:
    """The samples of one experiment. Only the experiment that made it adds to it."""

    def __init__(self) -> None:
        self._units: dict[str, str] = {}
        self._samples: dict[tuple[str, str], list[float]] = {}

    def add(self, contender: str, figure: str, unit: str, sample: float) -> None:
        """Append the sample of one round."""
        if self._units.setdefault(figure, unit) != unit:
            raise ValueError(f"{figure!r} is measured in {self._units[figure]}, not in {unit}")
        self._samples.setdefault((contender, figure), []).append(sample)

    def cells(self) -> Iterator[Cell]:
        """Every cell, in the order in which the first samples came."""
        for (contender, figure), samples in self._samples.items():
            yield Cell(contender, figure, self._units[figure], tuple(samples))
