"""What a slot of the server has here in place of a runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.job_runner import JobRunner

if TYPE_CHECKING:
    from director._client.queue import ServerQueue
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob


class ServerCalls(JobRunner):
    """The calls of one slot, which the server makes."""

    def __init__(self, queue: ServerQueue) -> None:
        self._queue = queue

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Never called: the slot has no thread here."""
        raise NotImplementedError

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Never called: the same."""
        raise NotImplementedError

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Never called: the same."""
        raise NotImplementedError

    def recover(self, error: BaseException, fault: Fault) -> bool:
        """Never called: the same."""
        raise NotImplementedError

    def close(self) -> None:
        """Never called: the same."""
        raise NotImplementedError

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """The running `job` was cancelled, or its time is up: tell the server."""
        self._queue.cancel(job)

    def abort(self) -> bool:
        """Never called: the server ends calls."""
        return False
