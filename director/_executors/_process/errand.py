"""One call that is under way in a child."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from director._core.states import JobState
from director._executors._process.board import Notice
from director._executors._process.ladder import Ladder
from director._executors._process.wire import How

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._process.call import Call
    from director._executors._process.child import Child

_RUNNING = JobState.RUNNING
_NO_NOTICE, _USUALLY = int(Notice.NONE), int(How.USUALLY)  # an enum's member takes a search each time
_SILENCE = 10.0  # seconds in which a child that has nothing else to do takes a call, if it is not stopped or stuck
_BOOTING = 60.0  # the same for one that is just being started, on a slow disk


class Errand:
    """A call and who makes it. The slot's thread's, but for `notify` and `end`, which the event loop calls.

    Args:
        call: What is to be done.
        child: Makes it.
    """

    __slots__ = (
        "_ladder",
        "_silent_until",
        "began",
        "call",
        "child",
        "is_typical",
        "jobs",
        "number",
        "place",
        "refusal",
    )

    def __init__(self, call: Call, child: Child) -> None:
        self.call = call
        self.jobs: list[Job[Any]] = call.jobs
        self.child = child
        self.number = next(child.numbers)
        self.place = child.calls  # how many others were sent before it
        self.refusal: BaseException | None = None  # of the reader of a stream
        self.is_typical = True  # it says something about the next one's time
        self.began = 0.0
        self._ladder: Ladder | None = None
        self._silent_until = math.inf
        child.board.post(self.number, _NO_NOTICE)

    @property
    def is_brief(self) -> bool:
        """Whether it has but one answer: a result."""
        return self.call.how == _USUALLY

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody waits for the call any more."""
        jobs = self.jobs
        return jobs[0]._stage is not _RUNNING and all(job._stage is not _RUNNING for job in jobs)

    def begin(self, now: float) -> None:
        """Its turn has come."""
        self.began = now
        self._silent_until = now + (_SILENCE if self.child.is_ready else _BOOTING)

    def notify(self, notice: Notice) -> None:
        """Tell the call that nobody waits for it."""
        self.child.board.post(self.number, notice)

    def end(self, moment: float, grace: float) -> None:
        """Bring the call to its end, beginning at `moment`."""
        ladder = self._ladder or Ladder(grace)
        ladder.begin(moment)
        self._ladder = ladder  # last: the slot's thread may be looking

    def next_look(self) -> float:
        """The moment at which to `hurry`; infinite for never."""
        return self._silent_until if self._ladder is None else min(self._silent_until, self._ladder.next)

    def hurry(self) -> None:
        """Do what is due.

        Raises:
            Lost: The child does not end, whatever is done.
        """
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = math.inf
            if not self.child.has_taken(self.place):
                self.end(now, 0.0)
        if self._ladder is not None:
            self._ladder.climb(now, self.child.signal)
