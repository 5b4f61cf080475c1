"""How a batch runs on its slot's thread: one call for all, and each item's own value or error.

A batch that fails as a whole may be run again in parts: in halves if the device's memory was full or if it could not be
sent to another process, item by item if the function says ``isolate_failures``, so that what fails alone fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import fault_of
from director._executors.base import LoadFailed, NeverStarted, NotSent
from director._forks import leave_copy
from director._jobs.state import JobState
from director._untrusted.objects import add_note, is_a, type_name
from director.errors import BatchMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.options import BatchRule
    from director._jobs.runner import JobRunner


class BatchCall:
    """One batch on its way through.

    Args:
        runner: Makes the calls.
        rule: The function's.
    """

    __slots__ = ("_rule", "_runner", "is_typical", "largest_fit", "oom_fault", "sizes", "values")

    def __init__(self, runner: JobRunner, rule: BatchRule) -> None:
        self._runner = runner
        self._rule = rule
        self.is_typical = True  # one call that returned
        self.oom_fault: Fault | None = None  # the last lack of memory
        self.sizes: list[int] = []  # of the calls that lacked it
        self.largest_fit = 0  # the largest call that returned after that
        self.values: Sequence[Any] | None = None  # of one call for all, without an error; the worker hands them out

    def run(self, jobs: list[ScheduledJob[Any]]) -> dict[ScheduledJob[Any], BaseException]:
        """Run jobs of one function as one batch, or if that fails perhaps in parts.

        Returns:
            The errors of those that have failed; the others have their values as cargo, or there are `values`.
        """
        try:
            values = self._runner.run_batch(jobs)
            leave_copy()
            values = _checked(values, len(jobs), self._rule.name)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the callers
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
            self.values = [*values]  # the next call may write into the same list
            return {}
        errors = {}
        for part in parts:
            if wanted := [job for job in part if job.state is JobState.RUNNING]:
                errors.update(self.run(wanted))  # the others' callers have left, or their time was up, meanwhile
        return errors

    def _parts(self, jobs: list[ScheduledJob[Any]], error: BaseException) -> list[list[ScheduledJob[Any]]]:
        """What to run instead of a batch that has raised; nothing if no item could succeed by it."""
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
        if len(jobs) > 1:
            return _halves(jobs)
        if self.sizes.count(1) == 1:
            return [jobs]  # once more, now that what frameworks had kept is free
        add_note(error, f"director: the device's memory was full in calls with {_numbers(self.sizes)} items")
        return []


def _halves(jobs: list[ScheduledJob[Any]]) -> list[list[ScheduledJob[Any]]]:
    half = (len(jobs) + 1) // 2
    return [jobs[:half], jobs[half:]]


def _checked(values: Any, size: int, name: str) -> Sequence[Any]:
    """What a call returned, as a list: taken out here, where it is the function's fault if that fails."""
    if type(values) is list and len(values) == size:  # nearly always; the questions below take longer
        return values
    is_sequence = hasattr(values, "__len__") and hasattr(values, "__iter__")
    if not is_sequence or isinstance(values, (str, bytes, bytearray, Set, Mapping)):
        raise BatchMismatch(name, size, f"a {type_name(values)}")
    results = values if type(values) is list else list(values)
    if len(values) != size or len(results) != size:  # those of a data frame differ: rows and columns
        raise BatchMismatch(name, size, f"{len(results)} results")
    return results


def _has_error(values: Sequence[Any]) -> bool:
    """Whether a look at each of them is needed: they are asked in the fastest way, which a value may answer wrongly."""
    try:
        for value in values:
            if isinstance(value, Exception):
                return True
    except BaseException:  # noqa: BLE001 - of a `__class__` that raises
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
