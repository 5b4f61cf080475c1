"""Interleaved rounds, every contender with the same work in rotating order, and the time of one call alone."""

from __future__ import annotations

import gc
import time
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
