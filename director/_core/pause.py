"""Jobs between two tries: they wait, but not in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from director._core.job import Job
    from director._core.line import Home


class Pause:
    """The home of jobs whose next try is still to come. Guarded by `dispatch`'s lock."""

    __slots__ = ("jobs",)

    upper: Home | None = None

    def __init__(self) -> None:
        self.jobs: dict[Job[Any], None] = {}

    def push(self, job: Job[Any]) -> None:
        """Add a job."""
        job._where = self
        self.jobs[job] = None

    def left(self, job: Job[Any]) -> None:
        """One of its jobs waits here no more."""
        del self.jobs[job]
