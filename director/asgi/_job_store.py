"""Jobs that are looked up by an id: one request submits, later ones ask how it goes. Owner: `JobStore`, on the loop."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from director import JobState
from director._system.clock import MonotonicClock
from director._untrusted.numbers import seconds, whole
from director._untrusted.objects import log_error
from director.asgi._problem import Problem, problem_of
from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from director import Director, Job
    from director._system.clock import Clock, Timer

logger = logging.getLogger("director")

_FAILED = Problem(500, "The job failed.", "job-failed")


class StoredJob:
    """A job with an id that can't be guessed. `problem` says why it has failed, without the text of its exception."""

    __slots__ = ("ended_at", "id", "job", "problem")

    def __init__(self, id: str, job: Job[Any]) -> None:
        self.id: str = id
        self.job: Job[Any] = job
        self.problem: Problem | None = None
        self.ended_at: float | None = None  # by the store's clock

    def status(self) -> dict[str, Any]:
        """What a client is told: `id`, `state`, `progress`, and `result` or `problem` where there is one."""
        job = self.job
        told = {"id": self.id, "state": job.state.value, "progress": job.progress}
        if job.state is JobState.SUCCEEDED:
            told["result"] = job.result()
        elif self.problem is not None:
            told["problem"] = self.problem.content
        return told


class JobStore:
    """Submits jobs and keeps them for requests that come later, in memory that is bounded. Use it on the event loop.

    Jobs that wait or run are bounded by the Director's own queue. Of those that have ended the latest are kept, with
    their results: each for `keep` seconds, and no more than `most` together. When there are more, the tenant that has
    the most loses its oldest, so that a flood by one tenant takes nothing from the others.

    A job belongs to its tenant: for any other one it is not there. A job without a tenant belongs to every client that
    knows its id.

    Args:
        director: Runs the jobs.
        keep: Seconds that a job is kept after its end.
        most: Jobs that have ended and are kept.
        clock: A clock of `director.testing`; `None` takes the machine's.

    Raises:
        TypeError, ValueError: `keep` or `most` is no number, or out of range.
    """

    def __init__(
        self, director: Director, *, keep: float = 3600.0, most: int = 1_000, clock: Clock | None = None
    ) -> None:
        self._director = director
        self._keep = seconds("keep", keep, zero=True)
        self._most = whole("most", most, 1)
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._jobs: dict[str, StoredJob] = {}
        self._ended: dict[str, StoredJob] = {}  # in the order of their ends
        self._timer: Timer | None = None  # for the first of these

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> StoredJob:
        """Submit a job as `Director.submit` does, with the same arguments and errors.

        Cancellation: none; a client who leaves leaves the job running.
        """
        stored = StoredJob(secrets.token_urlsafe(16), self._director.submit(fn, *args, **options))
        self._jobs[stored.id] = stored
        stored.job.add_done_callback(lambda _: self._end(stored))
        return stored

    def get(self, id: str, tenant: Hashable = None) -> StoredJob | None:
        """The job with this id; `None` if it isn't kept, or belongs to another tenant."""
        stored = self._jobs.get(id)
        return stored if stored is not None and stored.job.tenant == tenant else None

    def discard(self, id: str, tenant: Hashable = None) -> bool:
        """Cancel a job, or forget one that has ended; false if it isn't kept, or belongs to another tenant."""
        stored = self.get(id, tenant)
        if stored is None:
            return False
        if stored.job.done():
            self._forget(stored)
        else:
            stored.job.cancel()
        return True

    def __len__(self) -> int:
        return len(self._jobs)

    def _end(self, stored: StoredJob) -> None:
        """A job has ended."""
        stored.problem = _problem_of(stored)
        stored.ended_at = self._clock.time()
        self._ended[stored.id] = stored
        if len(self._ended) > self._most:
            self._forget(self._least_wanted())
        self._set_timer()

    def _least_wanted(self) -> StoredJob:
        """The oldest job of the tenant that has the most."""
        kept = Counter(stored.job.tenant for stored in self._ended.values())
        most = max(kept.values())
        return next(stored for stored in self._ended.values() if kept[stored.job.tenant] == most)

    def _forget(self, stored: StoredJob) -> None:
        self._jobs.pop(stored.id, None)
        self._ended.pop(stored.id, None)

    def _set_timer(self) -> None:
        first = next(iter(self._ended.values()), None)
        if self._timer is None and first is not None and first.ended_at is not None:
            delay = max(0.0, first.ended_at + self._keep - self._clock.time())
            self._timer = self._clock.call_later(delay, self._forget_old)

    def _forget_old(self) -> None:
        self._timer = None
        now = self._clock.time()
        while first := next(iter(self._ended.values()), None):
            if first.ended_at is not None and first.ended_at + self._keep > now:
                break
            self._forget(first)
        self._set_timer()


def _problem_of(stored: StoredJob) -> Problem | None:
    """Why a job has failed, in words that hold no text of the exception; that is logged, under the `id` of a 500."""
    if stored.job.state is not JobState.FAILED:
        return None
    error = stored.job.exception()
    problem = problem_of(error) if isinstance(error, DirectorError) else _FAILED
    if problem.status == 500 and error is not None:
        log_error(logger, error, "the job with the id %s failed", stored.id)
        return replace(problem, facts={**problem.facts, "id": stored.id})
    return problem
