"""The two lifecycles and the Director's own, each an enum with its legal moves written beside it.

A job and a permit live apart: a job whose caller has left is over at once, while its slot stays taken until the thread
has ended.
"""

from __future__ import annotations

from enum import Enum


class JobState(Enum):
    """Where a job is in its life.

    | from | to |
    |---|---|
    | `QUEUED` | `RUNNING`, `CANCELLED`, `FAILED` (deadline passed, model failed to load, Director failed) |
    | `RUNNING` | `SUCCEEDED`, `FAILED`, `CANCELLED`, `QUEUED` (to be tried again) |
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SlotState(Enum):
    """Where a slot is between two rests.

    | from | to | who |
    |---|---|---|
    | `IDLE` | `HIRED` | the Director coroutine takes a permit |
    | `HIRED`, `CALLED` | `WORKING`, `PARKED` | the worker looks for a job |
    | `WORKING` | `WORKING`, `PARKED` | the worker looks for its next job |
    | `PARKED` | `CALLED` | whoever brings work |
    | `PARKED` | `LEAVING` | the worker has lingered long enough |
    | `LEAVING` | `IDLE` | the done-callback reaps: the permit goes back |
    | `HIRED`, `CALLED`, `WORKING` | `ELSEWHERE` | the worker finds that another process has the slot |
    | `ELSEWHERE` | `WORKING`, `PARKED` | the worker has got it |
    | `HIRED`, `CALLED`, `WORKING`, `ELSEWHERE` | `BACKING_OFF` | its thread or process can't be started |
    | `BACKING_OFF` | `IDLE` | it has rested, and may be tried again |
    """

    IDLE = "idle"
    HIRED = "hired"
    WORKING = "working"
    PARKED = "parked"
    CALLED = "called"
    LEAVING = "leaving"
    ELSEWHERE = "elsewhere"
    BACKING_OFF = "backing off"


class Health(Enum):
    """Whether a device gets work.

    | from | to | when |
    |---|---|---|
    | `HEALTHY` | `QUARANTINED` | it was lost, or its workers were, again and again |
    | `QUARANTINED` | `PROBATION` | time for a probe |
    | `PROBATION` | `HEALTHY`, `QUARANTINED` | the probe says so |
    """

    HEALTHY = "healthy"
    QUARANTINED = "quarantined"
    PROBATION = "probation"


class DirectorState(Enum):
    """What a Director does with new jobs: only an `OPEN` one takes them."""

    NEW = "new"
    STARTING = "starting"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"
    FAILED = "failed"


HEALTH_MOVES: dict[Health, frozenset[Health]] = {
    Health.HEALTHY: frozenset({Health.QUARANTINED}),
    Health.QUARANTINED: frozenset({Health.PROBATION}),
    Health.PROBATION: frozenset({Health.HEALTHY, Health.QUARANTINED}),
}

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

SLOT_MOVES: dict[SlotState, frozenset[SlotState]] = {
    SlotState.IDLE: frozenset({SlotState.HIRED}),
    SlotState.HIRED: frozenset({SlotState.WORKING, SlotState.PARKED, SlotState.ELSEWHERE, SlotState.BACKING_OFF}),
    SlotState.WORKING: frozenset({SlotState.WORKING, SlotState.PARKED, SlotState.ELSEWHERE, SlotState.BACKING_OFF}),
    SlotState.PARKED: frozenset({SlotState.CALLED, SlotState.LEAVING}),
    SlotState.CALLED: frozenset({SlotState.WORKING, SlotState.PARKED, SlotState.ELSEWHERE, SlotState.BACKING_OFF}),
    SlotState.LEAVING: frozenset({SlotState.IDLE}),
    SlotState.ELSEWHERE: frozenset({SlotState.WORKING, SlotState.PARKED, SlotState.BACKING_OFF}),
    SlotState.BACKING_OFF: frozenset({SlotState.IDLE}),
}
