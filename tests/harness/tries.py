"""Items of a story of batches and tries, the functions they are given to, and what must become of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from director import Job, JobState

if TYPE_CHECKING:
    from harness.stage import Gate

QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED


class Shaky(Exception):
    """Worth another try."""


@dataclass(eq=False)
class Kind:
    """A function of batches and what it was told."""

    name: str
    options: dict[str, Any]
    function: Any = None

    @property
    def size(self) -> int:
        return int(self.options["max_batch_size"])

    @property
    def max_wait(self) -> float:
        return float(self.options.get("max_wait", 0.0))


@dataclass(eq=False)
class Item:
    """One accepted job and what must have become of it."""

    number: int
    kind: Kind | None
    key: int
    cost: float
    devices: frozenset[int]
    retries: int
    backoff: float
    due: float
    submitted: float
    job: Job[Any] = field(init=False)
    state: JobState = QUEUED
    outcome: Any = None  # what it must return, or raise: the error itself, or its type
    tries: list[int] = field(default_factory=list)  # the devices of those that have failed
    resumes: float = -math.inf  # the end of its back-off
    ends: int = 0  # calls of its done-callback

    @property
    def is_over(self) -> bool:
        return self.state not in (QUEUED, RUNNING)

    def end(self, state: JobState, outcome: Any) -> None:
        if not self.is_over:
            self.state, self.outcome = state, outcome


@dataclass(eq=False)
class Call:
    """One call of a function, at its gate."""

    gate: Gate
    items: list[Item]
    device: int
    kind: Kind | None


KINDS: tuple[dict[str, Any], ...] = (
    {"max_batch_size": 3},
    {"max_batch_size": 4, "max_wait": 2.0},
    {"max_batch_size": 4, "max_batch_cost": 10.0},
    {"max_batch_size": 4, "max_batch_cost": 12.0, "batch_padding": True, "max_wait": 1.0},
    {"max_batch_size": 2, "batch_window": 2},
    {"max_batch_size": 3, "isolate_failures": True},
)
