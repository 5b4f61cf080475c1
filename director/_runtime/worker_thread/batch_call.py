"""Runs a batch on its slot's thread: one call, and a value or an error for each item.

A batch that fails as a whole may be run again in parts: in halves if it could not be sent to another process, or if the
device's memory was full, also after all idle models had left; item by item if the function has ``isolate_failures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import fault_of
from director._executors.base import LoadFailed, NeverStarted, NotSent
from director._jobs.state import JobState
from director._system.forks import leave_copy
from director._untrusted.objects import add_note, is_a, type_name
from director.errors import BatchMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import JobRunner
    from director._jobs.options import BatchRule


class BatchCall:
    """The calls of one batch."""

    __slots__ = ("_make_room", "_rule", "_runner", "is_typical", "largest_fit", "oom_fault", "sizes", "values")

    def __init__(self, runner: JobRunner, rule: BatchRule, make_room: Callable[[], bool]) -> None:
        self._make_room = make_room
        self._runner = runner
        self._rule = rule
        self.is_typical = True  # it was one call, which returned
        self.oom_fault: Fault | None = None  # the last out-of-memory error
        self.sizes: list[int] = []  # of the calls that ran out of memory
        self.largest_fit = 0  # the largest call that returned after that
        self.values: Sequence[Any] | None = None  # of a single call without errors; the worker assigns them to the jobs

    def run(
        self, jobs: list[ScheduledJob[Any]], failed: BaseException | None = None
    ) -> dict[ScheduledJob[Any], BaseException]:
        """Run jobs of one function as one batch, or in parts if that fails.

        Args:
            jobs: Some.
            failed: What the load before the call raised: the call fails with it.

        Returns:
            The errors of the jobs that failed; the others have their results in `payload`, or there are `values`.
        """
        try:
            if failed is not None:
                raise failed
            values = self._runner.run_batch(jobs)
            leave_copy()
            values = _checked(values, len(jobs), self._rule.name)
        except BaseException as error:  # noqa: BLE001 - all errors belong to the callers
            leave_copy(error)
            self.is_typical = False
            parts = self._parts(jobs, error)
            if not parts:
                return dict.fromkeys(jobs, error)
        else:
            if self.oom_fault is not None:
                self.largest_fit = max(self.largest_fit, len(jobs))
            if not self.is_typical or _has_error(values):
                return _told_apart(jobs, values)
            self.values = [*values]  # the function may reuse its list in the next call
            return {}
        errors = {}
        for part in parts:
            if wanted := [job for job in part if job.state is JobState.RUNNING]:
                errors.update(self.run(wanted))  # the others have ended since
        return errors

    def _parts(self, jobs: list[ScheduledJob[Any]], error: BaseException) -> list[list[ScheduledJob[Any]]]:
        """The smaller batches to run after a batch has raised; empty if no item could succeed in one."""
        if not is_a(error, Exception) or is_a(error, (LoadFailed, NeverStarted)):
            return []
        if is_a(error, NotSent):
            return _halves(jobs)
        fault = fault_of(error)
        if fault is not None and fault.kind == "memory":
            return self._smaller(jobs, error, fault)
        if fault is None and self._rule.isolate_failures and len(jobs) > 1:
            return [[job] for job in jobs]
        return []

    def _smaller(
        self, jobs: list[ScheduledJob[Any]], error: BaseException, fault: Fault
    ) -> list[list[ScheduledJob[Any]]]:
        self.oom_fault = fault
        self.sizes.append(len(jobs))
        self._runner.recover(error, fault)
        if self._make_room():
            return [jobs]
        if len(jobs) > 1:
            return _halves(jobs)
        if self.sizes.count(1) == 1:
            return [jobs]  # once more, after `recover` has freed caches
        add_note(error, f"director: the device's memory was full in calls with {_numbers(self.sizes)} items")
        return []


def _halves(jobs: list[ScheduledJob[Any]]) -> list[list[ScheduledJob[Any]]]:
    half = (len(jobs) + 1) // 2
    return [jobs[:half], jobs[half:]]


def _checked(values: Any, size: int, name: str) -> Sequence[Any]:
    """What a call returned, as a list. An error raised here is the function's."""
    if type(values) is list and len(values) == size:  # the usual case, and the fastest check
        return values
    is_sequence = hasattr(values, "__len__") and hasattr(values, "__iter__")
    if not is_sequence or isinstance(values, (str, bytes, bytearray, Set, Mapping)):
        raise BatchMismatch(name, size, f"a {type_name(values)}")
    results = values if type(values) is list else list(values)
    if len(values) != size or len(results) != size:  # the two differ for a data frame
        raise BatchMismatch(name, size, f"{len(results)} results")
    return results


def _has_error(values: Sequence[Any]) -> bool:
    """Whether some value may be an exception: a fast check, which a value's class may deceive."""
    try:
        for value in values:
            if isinstance(value, Exception):
                return True
    except BaseException:  # noqa: BLE001 - a `__class__` property may raise
        return True
    return False


def _told_apart(jobs: list[ScheduledJob[Any]], values: Sequence[Any]) -> dict[ScheduledJob[Any], BaseException]:
    errors: dict[ScheduledJob[Any], BaseException] = {}
    for job, value in zip(jobs, values, strict=True):
        if is_a(value, Exception):
            errors[job] = value
        else:
            job.payload = value
    return errors


def _numbers(sizes: list[int]) -> str:
    return ", ".join(map(str, sorted(set(sizes), reverse=True)))
