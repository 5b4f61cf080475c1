"""What the lifecycle of jobs asks of the queue that they wait in: the scheduler's, or that of a server process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.state import JobState
    from director._scheduler.placement import Jobs
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import WakeCall


class JobQueue(Protocol):
    """Where jobs wait and run; see `Scheduler`."""

    slots: list[Slot]

    @property
    def is_deciding(self) -> bool:
        """Whether this thread is in the midst of a decision, which a finalizer or a handler has interrupted."""

    def admit(self, job: ScheduledJob[Any], wait_for_room: bool) -> WakeCall:
        """Queue a job."""

    def admit_deferred(self, job: ScheduledJob[Any], wait_for_room: bool) -> WakeCall:
        """Queue a job submitted during a decision."""

    def remove(self, job: ScheduledJob[Any], state: JobState) -> bool:
        """Move a waiting job to `state`, so that it never runs; False if it doesn't wait any more."""

    def remove_all(self, into: Jobs, state: JobState) -> None:
        """Add waiting jobs to `into`, by age; then set their `state`."""

    def hold_for_retry(self, job: ScheduledJob[Any]) -> bool:
        """Keep a failed job for its next attempt; False if it has ended, or admission has."""

    def requeue(self, job: ScheduledJob[Any]) -> WakeCall:
        """Queue a job held for retry."""

    def running(self, *, and_waiting: bool = False) -> list[ScheduledJob[Any]]:
        """Jobs in slots; with `and_waiting` those that wait too."""

    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""

    def is_drained(self) -> bool:
        """As `is_idle`, but for calls that run although their jobs have ended."""

    def can_load(self, job: ScheduledJob[Any]) -> bool:
        """Whether a device that has the model of a job, or may load it, is left."""

    def is_coming(self, model: Model[Any]) -> bool:
        """Whether a device has the model, or loads it."""

    def fail_unloadable(self, into: Jobs, model: Model[Any], hopeless: ScheduledJob[Any] | None = None) -> None:
        """Add the jobs that no device is left for to `into`, as FAILED."""

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots whose devices get work."""

    def wake_again(self) -> None:
        """Repeat the wake-ups of a call that was interrupted."""
