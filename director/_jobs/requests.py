"""Which jobs were submitted for a request, for what answers it: whether any of them ran.

A request is what sets `request` in its context. Jobs are noted only after `follow`, so that others cost nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from director._jobs.job import ScheduledJob


class RequestJobs:
    """The jobs of one request. On the event loop only; keeps none that has ended."""

    __slots__ = ("_has_run", "_open")

    def __init__(self) -> None:
        self._open: set[asyncio.Future[Any]] = set()
        self._has_run: bool | None = None  # one that has ended; `None`: there was none at all

    def add(self, job: ScheduledJob[Any]) -> None:
        """A job was submitted."""
        self._has_run = bool(self._has_run)
        self._open.add(job)
        job.add_done_callback(self._note_end)

    @property
    def is_waiting(self) -> bool:
        """Whether one of them waits for its call."""
        return not all(_has_begun(job) for job in self._open)

    @property
    def has_run(self) -> bool:
        """Whether the call of one of them has begun, or the request has done without jobs what it did."""
        return self._has_run is not False or any(_has_begun(job) for job in self._open)

    def _note_end(self, job: asyncio.Future[Any]) -> None:
        self._open.discard(job)
        self._has_run = self._has_run or _has_begun(job)


def _has_begun(job: Any) -> bool:
    return bool(job.attempts)


class Follower(Protocol):
    """What submits jobs."""

    def follow_requests(self) -> None:
        """Add each job to the `request` of its context from now on."""


request: ContextVar[RequestJobs | None] = ContextVar("director.request", default=None)
_followers: WeakSet[Follower] = WeakSet()
_is_followed = False


def follow() -> None:
    """Have the jobs of all requests noted."""
    global _is_followed
    _is_followed = True
    for follower in list(_followers):
        follower.follow_requests()


def register(follower: Follower) -> bool:
    """Have `follow_requests` called when `follow` is; whether it was already."""
    _followers.add(follower)
    return _is_followed
