"""`ProcessExecutor`: what a user says about child processes. Light, for every `import director` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._core.chronicle import Chronicle
    from director._core.slot import Slot
    from director._executors._process.seat import ProcessSeat
    from director._models import Residency


@dataclass(frozen=True, kw_only=True)
class ProcessExecutor:
    """Runs the jobs of each slot in a child process of its own; ``Director(executor="process")`` with other terms.

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
        most, grace = self.max_jobs_per_worker, self.grace
        if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
            raise TypeError(f"max_jobs_per_worker must be an int or None, not {most!r}")
        if most is not None and most < 1:
            raise ValueError(f"max_jobs_per_worker must be at least 1, not {most}")
        if isinstance(grace, bool) or not isinstance(grace, (int, float)):
            raise TypeError(f"grace must be seconds as a number, not {grace!r}")
        if not grace >= 0:
            raise ValueError(f"grace must not be negative, not {grace!r}")

    def seat(self, slot: Slot, residency: Residency, chronicle: Chronicle) -> ProcessSeat:
        """A seat for `slot`; its child starts with the first job.

        Raises:
            RuntimeError: Children can't be started here.
        """
        from director._executors._process.seat import ProcessSeat
        from director._executors._process.spawn import check_platform

        check_platform()
        residency.is_apart = True
        return ProcessSeat(slot, residency, chronicle, self)
