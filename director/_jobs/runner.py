"""What runs the jobs of one slot, as the runtime sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._runtime.worker import PrefetchSource


class Runner(Protocol):
    """Where the jobs of one slot run. Its jobs run on the slot's own thread, or are driven by it."""

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Make the call of `job` and return what it returns. May note in the job when the call has ended.

        Raises:
            LoadFailed: Its model could not be loaded.
            NeverStarted: Nothing of it ran.
            BaseException: What the call raised.
        """

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Make one call for several jobs of one function, with the list of their items, and return what it returns.

        Raises:
            LoadFailed: Their model could not be loaded.
            NeverStarted: Nothing of it ran.
            BaseException: What the call raised.
        """

    def recover(self, error: BaseException, fault: Fault) -> bool:
        """Make the best of a fault that the last call has met: free memory, replace a process.

        Returns:
            False if this process can't use the device any more.
        """

    def close(self) -> None:
        """Let go of everything that the slot holds; no job comes after."""

    def set_prefetch(self, source: PrefetchSource) -> None:
        """Where to get jobs ahead of their turn; called on the event loop, before the first job."""

    def recall_prefetched(self) -> None:
        """From any thread: give back what was taken ahead and has not begun."""

    # These two are called on the event loop, at any moment:

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """The caller of `job`, which runs here, has left: it was cancelled, or its time is up."""

    def abort(self) -> bool:
        """End the call that runs, for the Director closes; False if that can't be done."""
