"""The jobs of the contenders. Every job takes, and ignores, the device that a Director passes."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def noop(*_device: object) -> None:
    """Do nothing: what remains is the cost of the call."""


class Stamped:
    """A sleep that records when it began and ended, by the job's own clock.

    Sleeping stands for a kernel: the device is busy and the GIL is free. A job that must wait for the GIL afterwards
    ends late, as it would with a real kernel. `list.append` is atomic, so slots need no lock between two jobs.

    Args:
        seconds: How long the device is busy.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spans: list[tuple[int, int]] = []
        self.over = False  # set once by the measuring task: jobs that are still queued then return at once

    def __call__(self, *_device: object) -> None:
        """Occupy the device once."""
        if self.over:
            return
        began = time.perf_counter_ns()
        time.sleep(self.seconds)
        self.spans.append((began, time.perf_counter_ns()))


def bare_time(job: Callable[[], object], times: int) -> float:
    """Seconds that one call takes alone, without any scheduler: the median of `times` calls in a row."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter_ns()
        job()
        seconds.append((time.perf_counter_ns() - began) / 1e9)
    return median(seconds)
