"""One call that is under way in a child."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from director._executors._process.board import Notice
from director._executors._process.ladder import Ladder

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._process.child import Child

_SILENCE = 10.0  # seconds in which a child that has nothing else to do takes a call, if it is not stopped or stuck
_BOOTING = 60.0  # the same for one that is just being started, on a slow disk


class Errand:
    """A call and who makes it. The slot's thread's, but for `notify` and `end`, which the event loop calls.

    Args:
        jobs: Whose call.
        child: Makes it.
    """

    __slots__ = ("_ladder", "_silent_until", "child", "jobs", "number")

    def __init__(self, jobs: list[Job[Any]], child: Child) -> None:
        self.jobs = jobs
        self.child = child
        self.number = child.calls
        self._ladder: Ladder | None = None
        self._silent_until = time.monotonic() + (_SILENCE if child.is_ready else _BOOTING)
        child.board.post(self.number, Notice.NONE)

    def notify(self, notice: Notice) -> None:
        """Tell the call that nobody waits for it."""
        self.child.board.post(self.number, notice)

    def end(self, moment: float, grace: float) -> None:
        """Bring the call to its end, beginning at `moment`."""
        ladder = self._ladder or Ladder(grace)
        ladder.begin(moment)
        self._ladder = ladder  # last: the slot's thread may be looking

    def patience(self) -> float | None:
        """Seconds after which to `hurry`; `None` for never."""
        moment = self._silent_until if self._ladder is None else min(self._silent_until, self._ladder.next)
        return None if moment == math.inf else max(0.0, moment - time.monotonic())

    def hurry(self) -> None:
        """Do what is due.

        Raises:
            Lost: The child does not end, whatever is done.
        """
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = math.inf
            if not self.child.has_taken():
                self.end(now, 0.0)
        if self._ladder is not None:
            self._ladder.climb(now, self.child.signal)
