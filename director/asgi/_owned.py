"""A job that belongs to one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from director._core.job import Owned

if TYPE_CHECKING:
    from director import Job

T = TypeVar("T")


async def owned(job: Job[T]) -> T:
    """Await a job that nobody else waits for.

    As in ``await owned(director.submit(fn, item))``. `Director.submit` refuses when too many wait, which is what a
    server wants, but leaves the job to whoever holds its handle; `Director.run` cancels the job with its caller, but
    never refuses. This has both.

    Cancellation: cancels the job.

    Raises:
        BaseException: What the job raised.
    """
    return await Owned(job)
