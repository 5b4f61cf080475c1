"""One call that is under way in a child."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from director._executors._process.board import Notice

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._process.child import Child
    from director._executors._process.ladder import Ladder

_SILENCE = 10.0  # seconds in which a child that has nothing else to do takes a call, if it is not stopped or stuck
_BOOTING = 60.0  # the same for one that is just being started, on a slow disk


class Errand:
    """A call, who makes it, and what is done if it does not end. The slot's thread's, but for `notify`.

    Args:
        job: Whose call.
        child: Makes it.
        ladder: Ends it.
    """

    __slots__ = ("_silent_until", "child", "job", "ladder", "number")

    def __init__(self, job: Job[Any], child: Child, ladder: Ladder) -> None:
        self.job = job
        self.child = child
        self.ladder = ladder
        self.number = child.calls
        self._silent_until = time.monotonic() + (_SILENCE if child.is_ready else _BOOTING)
        child.board.post(self.number, Notice.NONE)

    def notify(self, notice: Notice) -> None:
        """From any thread: tell the call that nobody waits for it."""
        self.child.board.post(self.number, notice)

    def patience(self, now: float) -> float | None:
        """Seconds after which to `hurry`; `None` for never."""
        left = self.ladder.patience(now)
        if self._silent_until == math.inf:
            return left
        silent = max(0.0, self._silent_until - now)
        return silent if left is None else min(left, silent)

    def hurry(self, now: float) -> None:
        """Do what is due.

        Raises:
            Lost: The child does not end, whatever is done.
        """
        if now >= self._silent_until:
            self._silent_until = math.inf
            if not self.child.has_taken():
                self.ladder.begin(now)
        self.ladder.climb(now, self.child.signal)
