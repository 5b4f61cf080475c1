"""The states of a job, with their legal moves.

A job and the permit of its slot are independent: a cancelled job ends at once, while its slot stays busy until the call
has returned.
"""

from __future__ import annotations

from enum import Enum


class JobState(Enum):
    """The state of a job.

    | from | to |
    |---|---|
    | `QUEUED` | `RUNNING`, `CANCELLED`, `FAILED` (deadline passed, model failed to load, Director failed) |
    | `RUNNING` | `SUCCEEDED`, `FAILED`, `CANCELLED`, `QUEUED` (to be retried) |
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
