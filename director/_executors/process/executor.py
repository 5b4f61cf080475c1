"""`ProcessExecutor`: the options of child processes. Imports little, because `import director` imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from director._untrusted.numbers import seconds, whole

if TYPE_CHECKING:
    from director._executors.base import MemoryEvents
    from director._jobs.job_runner import JobRunner, SlotInfo
    from director._jobs.runner import RunnerEvents


@dataclass(frozen=True, kw_only=True)
class ProcessExecutor:
    """Runs the jobs of each slot in a child process of its own; ``Director(executor="process")`` with other options.

    Args:
        max_jobs_per_worker: Calls after which a child is replaced, against leaks; `None` for never.
        grace: Seconds between asking a call to end (its timeout has passed), SIGTERM and SIGKILL.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """

    max_jobs_per_worker: int | None = None
    grace: float = 1.0

    def __post_init__(self) -> None:
        if (most := self.max_jobs_per_worker) is not None:
            most = whole("max_jobs_per_worker", most, 1, kind="an int or None", hint="; None: for never")
        object.__setattr__(self, "max_jobs_per_worker", most)
        object.__setattr__(self, "grace", seconds("grace", self.grace, zero=True))

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> JobRunner:
        """A runner for `slot`; its child starts with the first job.

        Raises:
            RuntimeError: Children can't be started here.
        """
        from director._executors.process.runner import ProcessRunner
        from director._executors.process.spawn import check_platform

        check_platform()
        return ProcessRunner(slot, cast("MemoryEvents", events), self.grace, self.max_jobs_per_worker)
