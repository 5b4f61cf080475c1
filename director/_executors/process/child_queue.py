"""Calls that a child has before their turn, so that between two of them it waits for no other process.

Sent and not begun, they can be taken back: what the parent receives from the child's end of the socket the child never
sees. The slot's thread's; only `find` may be called from others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from director._executors.process.child_process import ChildProcess
from director._executors.process.encoding import ProcessCall
from director._executors.remote.prefetch_depth import PrefetchDepth
from director._executors.remote.runner import RemoteQueue
from director._ipc.channel import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._executors.process.child_process import ChildCall
    from director._executors.process.encoding import CallEncoder, CallMessage


class ChildQueue(RemoteQueue["ChildCall"]):
    """What one child has ahead.

    Args:
        encoder: Knows how calls are sent.
        most: Calls that one child may make.
    """

    def __init__(self, encoder: CallEncoder, most: int | None) -> None:
        super().__init__()
        self.pace = PrefetchDepth()
        self._encoder = encoder
        self._most = math.inf if most is None else most

    @property
    def rest(self) -> float:
        """Seconds for which the child's answers can wait: it has work, and so have all other slots."""
        if not self._sent or self.source is None or self.source.is_short:
            return 0.0
        return self.pace.rest(len(self._sent))

    def start(self, call: ChildCall) -> None:
        """The turn of a call has come, sent ahead or not: those before it are over, begun or not."""
        job, sent = call.jobs[0], self._sent
        is_ahead = sent.get(job) is call
        while sent:
            first = next(iter(sent))
            passed = sent.pop(first)
            if is_ahead and first is job:
                break
            if passed.answer is not None:
                ChildProcess.drop(passed.answer)
        if self._unsent is job:
            self._unsent = None

    def fill(self, child: ChildProcess) -> None:
        """Send more ahead, as the pace demands."""
        depth = self.pace.depth
        if self.source is None or depth - len(self._sent) < max(1, depth // 4) or self._is_blocked():
            return
        ready: list[tuple[ChildCall, CallMessage]] = []
        most = min(MOST, depth - len(self._sent), self._most - child.count)
        while len(ready) < most and (job := self.source.take()) is not None:
            call: ChildCall = ProcessCall([job], job.fn, job.payload)
            message = self._encoder.encode_ahead(call, child)
            if message is None:
                self._unsent = job
                break
            self._sent[job] = call  # first: who cancels it must find it
            ready.append((call, message))
        if ready:
            sent = child.send_ahead(ready)
            self._give_back([call.jobs[0] for call, _ in ready[sent:]])

    def return_all(self, calls: Iterable[ChildCall]) -> None:
        """These were taken back from the child: they may go elsewhere, and so may one that could not be sent ahead."""
        self._give_back([job for call in calls if self._sent.get(job := call.jobs[0]) is call])
