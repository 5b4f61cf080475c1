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


JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
