"""Prefetched calls of a child, so that it does not wait for the parent between two calls.

Calls that were sent and have not begun can be taken back: the parent has the child's end of the socket too, and what it
receives there the child never sees. For the slot's thread; `find` for any thread.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from director._executors.process.child_process import ChildProcess
from director._executors.process.encoding import ProcessCall
from director._executors.remote.calls import PrefetchQueue
from director._executors.remote.prefetch_depth import PrefetchDepth
from director._ipc.channel import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._executors.process.child_process import ChildCall
    from director._executors.process.encoding import CallEncoder, CallMessage


class ChildPrefetchQueue(PrefetchQueue["ChildCall"]):
    """The prefetched calls of one child.

    Args:
        encoder: Encodes the calls.
        most: Calls that one child may make; `None` for no bound.
    """

    def __init__(self, encoder: CallEncoder, most: int | None) -> None:
        super().__init__()
        self.depth = PrefetchDepth()
        self._encoder = encoder
        self._most = math.inf if most is None else most

    @property
    def read_delay(self) -> float:
        """Seconds for which answers need not be read: the child has calls, and all other slots are busy."""
        if not self._sent or self.source is None or self.source.is_short:
            return 0.0
        return self.depth.read_delay(len(self._sent))

    def start(self, call: ChildCall) -> None:
        """A call is the next, prefetched or not: drop those before it, which have ended."""
        job, sent = call.jobs[0], self._sent
        is_prefetched = sent.get(job) is call
        while sent:
            first = next(iter(sent))
            passed = sent.pop(first)
            if is_prefetched and first is job:
                break
            if passed.answer is not None:
                ChildProcess.drop(passed.answer)
        if self._unsent is job:
            self._unsent = None

    def fill(self, child: ChildProcess) -> None:
        """Prefetch more calls, up to the depth."""
        depth = self.depth.depth
        if self.source is None or depth - len(self._sent) < max(1, depth // 4) or self._is_blocked():
            return
        ready: list[tuple[ChildCall, CallMessage]] = []
        most = min(MOST, depth - len(self._sent), self._most - child.count)
        while len(ready) < most and (job := self.source.take()) is not None:
            call: ChildCall = ProcessCall([job], job.fn, job.payload)
            message = self._encoder.encode_prefetched(call, child)
            if message is None:
                self._unsent = job
                break
            self._sent[job] = call  # first: a cancellation must find it
            ready.append((call, message))
        if ready:
            sent = child.send_prefetched(ready)
            self._give_back([call.jobs[0] for call, _ in ready[sent:]])

    def return_all(self, calls: Iterable[ChildCall]) -> None:
        """Put calls that were taken back from the child into the scheduler's queue."""
        self._give_back([job for call in calls if self._sent.get(job := call.jobs[0]) is call])
