"""Calls that a child has before their turn, so that between two of them it waits for nobody.

Sent and not begun, they can be taken back: the parent reads them out of the child's inbox, and what it reads the child
never sees. Only calls that fit into a frame are sent ahead. The slot's thread's; only `find` may be called from others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._core.states import JobState
from director._executors._process.board import Notice
from director._executors._process.call import Call
from director._executors._process.errand import Errand
from director._executors._process.pace import Pace
from director._executors._remote import RemoteStock

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._process.call import Sender
    from director._executors._process.child import Child

_RUNNING = JobState.RUNNING


class Stock(RemoteStock[Errand]):
    """What one child has ahead.

    Args:
        sender: Knows how calls are sent.
        most: Calls that one child may make.
    """

    def __init__(self, sender: Sender, most: int | None) -> None:
        super().__init__()
        self.pace = Pace()
        self._sender = sender
        self._most = math.inf if most is None else most

    @property
    def rest(self) -> float:
        """Seconds for which nobody need look at the child: it has work, and so has everybody else."""
        if not self._sent or self.supply is None or self.supply.is_scarce:
            return 0.0
        return self.pace.rest(len(self._sent))

    def start(self, errand: Errand) -> None:
        """The turn of a call has come, sent ahead or not: those before it are over, begun or not."""
        if self._sent:
            self._forget_until(errand)
        if self._unsent is errand.jobs[0]:
            self._unsent = None

    def _forget_until(self, errand: Errand) -> None:
        for job, other in list(self._sent.items()):
            if other.number <= errand.number or other.child is not errand.child:
                del self._sent[job]

    def fill(self, child: Child) -> None:
        """Send more ahead, as the pace demands."""
        depth = self.pace.depth
        if self.supply is None or depth - len(self._sent) < max(1, depth // 4) or self._is_blocked():
            return
        frames = []
        while len(self._sent) < depth and child.calls < self._most and (job := self.supply.take()) is not None:
            frame = self._frame(child, job)
            if frame is None:
                self._unsent = job
                break
            frames.append(frame)
        if frames:
            child.post_at_once(b"".join(frames))

    def empty(self, child: Child, current: Errand) -> None:
        """Take back what the child has not begun, but for the call whose turn it is, and what is over and before it."""
        numbers = child.take_back(current.number)
        self._give_back([job for job, errand in self._sent.items() if errand.number in numbers])

    def lose(self) -> None:
        """The child is gone, and has begun none of them."""
        self._give_back(list(self._sent))

    def _frame(self, child: Child, job: Job[Any]) -> bytes | None:
        """The request for a job, which is noted as sent; `None` if it can't be sent ahead."""
        call = Call([job], job._fn, job._cargo)
        try:
            letter = self._sender.letter(call, child)
        except Exception:  # noqa: BLE001 - it will be raised again when it is the job's turn
            return None
        if not letter.fits:
            return None
        errand = self._sent[job] = Errand(call, child)
        errand.is_typical = not letter.introduces
        if job._stage is not _RUNNING:  # it was over before `find` could find it
            errand.notify(Notice.CANCELLED)
        return child.frame(letter, errand.number)
