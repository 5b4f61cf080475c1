"""How a batch runs on its slot's thread: one call for all, and each item's own outcome."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, TypeAlias

from director._core.states import JobState
from director._executors._base import LoadFailed
from director.errors import BatchMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director._core.job import Job
    from director._executors._base import Seat

Outcome: TypeAlias = "tuple[Job[Any], Any, BaseException | None]"  # with its value or its error


def run_batch(seat: Seat, jobs: list[Job[Any]]) -> tuple[list[Outcome], bool]:
    """Run `jobs` of one function as one batch; returns their outcomes, and whether it was one call that returned.

    A batch that fails as a whole is run again item by item if the function says ``isolate_failures``, so that
    what fails alone fails alone.
    """
    rule = jobs[0]._options.batch
    assert rule is not None
    try:
        values = _checked(seat.run_batch(jobs), len(jobs), rule.name)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the callers
        if len(jobs) == 1 or not rule.isolate_failures or not isinstance(error, Exception) or type(error) is LoadFailed:
            return [(job, None, error) for job in jobs], False
    else:
        return [_own(job, value) for job, value in zip(jobs, values, strict=True)], True
    return [_run_alone(seat, job) for job in jobs], False


def _run_alone(seat: Seat, job: Job[Any]) -> Outcome:
    if job._stage is not JobState.RUNNING:
        return job, None, None  # its caller has left, or its time was up, during the call for all
    [outcome], _ = run_batch(seat, [job])
    return outcome


def _checked(values: Any, size: int, name: str) -> Sequence[Any]:
    """What a call returned, as a list: taken out here, where it is the function's fault if that fails."""
    is_sequence = hasattr(values, "__len__") and hasattr(values, "__iter__")
    if not is_sequence or isinstance(values, (str, bytes, bytearray, Set, Mapping)):
        raise BatchMismatch(name, size, f"a {type(values).__name__}")
    results = values if type(values) is list else list(values)
    if len(values) != size or len(results) != size:  # those of a data frame differ: rows and columns
        raise BatchMismatch(name, size, f"{len(results)} results")
    return results


def _own(job: Job[Any], value: Any) -> Outcome:
    return (job, None, value) if isinstance(value, Exception) else (job, value, None)
