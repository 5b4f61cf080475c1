"""Calls that a child has before their turn, so that between two of them it waits for no other process.

Sent and not begun, they can be taken back: what the parent receives from the child's end of the socket the child never
sees. The slot's thread's; only `find` may be called from others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._executors._process.call import ProcessCall
from director._executors._process.child_process import ChildProcess
from director._executors._process.pace import Pace
from director._executors._remote import RemoteStock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._core.job import Job
    from director._executors._process.call import CallEncoder


class PrefetchedCalls(RemoteStock[ProcessCall]):
    """What one child has ahead.

    Args:
        encoder: Knows how calls are sent.
        most: Calls that one child may make.
    """

    def __init__(self, encoder: CallEncoder, most: int | None) -> None:
        super().__init__()
        self.pace = Pace()
        self._encoder = encoder
        self._most = math.inf if most is None else most

    @property
    def rest(self) -> float:
        """Seconds for which the child's answers can wait: it has work, and so have all other slots."""
        if not self._sent or self.supply is None or self.supply.is_scarce:
            return 0.0
        return self.pace.rest(len(self._sent))

    def start(self, call: ProcessCall) -> None:
        """The turn of a call has come, sent ahead or not: those before it are over, begun or not."""
        job = call.jobs[0]
        if self._sent:
            is_ahead = self._sent.get(job) is call
            for other in list(self._sent):
                passed = self._sent.pop(other)
                if is_ahead and other is job:
                    break
                if passed.answer is not None:
                    ChildProcess.drop(passed.answer)
        if self._unsent is job:
            self._unsent = None

    def fill(self, child: ChildProcess) -> None:
        """Send more ahead, as the pace demands."""
        depth = self.pace.depth
        if self.supply is None or depth - len(self._sent) < max(1, depth // 4) or self._is_blocked():
            return
        while len(self._sent) < depth and child.count < self._most and (job := self.supply.take()) is not None:
            if not self._send(child, job):
                self._unsent = job
                return

    def give_back(self, calls: Iterable[ProcessCall]) -> None:
        """These were taken back from the child: they may go elsewhere, and so may one that could not be sent ahead."""
        self._give_back([job for call in calls if self._sent.get(job := call.jobs[0]) is call])

    def _send(self, child: ChildProcess, job: Job[Any]) -> bool:
        """Send the call of a job; False if it can't be sent ahead."""
        call = ProcessCall([job], job._fn, job._cargo)
        try:
            message = self._encoder.encode_ahead(call, child)
            if message is None:
                return False
            self._sent[job] = call  # first: one who cancels it must find it
            child.send(call, message)
        except Exception:  # noqa: BLE001 - no room, or whatever else: it will be raised again when it is the job's turn
            self._sent.pop(job, None)
            return False
        return True
