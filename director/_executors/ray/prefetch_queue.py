"""The prefetched call of an actor, so that it does not wait for the network between two calls.

At most one: with the current call, two are in flight. For the slot's thread; `find` and `recall` for any thread.
"""

from __future__ import annotations

import math
import pickle
import time
from typing import TYPE_CHECKING, Any

from director._executors.ray.messages import WITHDRAW
from director._executors.ray.pending_call import RayCall
from director._executors.remote.calls import CallState, PrefetchQueue
from director._ipc.protocol import Notice

if TYPE_CHECKING:
    from director._executors.ray.actor_client import ActorClient
    from director._jobs.job import ScheduledJob

MOST_IN_FLIGHT = 2
_TOO_LONG = 0.5  # seconds of a call from which the time between two calls does not matter
_FOLLOWING = 0.2  # weight of the last call in the mean
_RETURN_AFTER = 2.0  # times the mean that a call may take before the prefetched one is given back
_RETURN_AFTER_AT_LEAST = 0.1  # seconds


class ActorPrefetchQueue(PrefetchQueue[RayCall]):
    """The prefetched call of one actor."""

    def __init__(self, client: ActorClient) -> None:
        super().__init__()
        self._client = client
        self._mean = 0.0  # seconds of a call; 0 while unknown
        self.is_recalled = False  # set by any thread: another slot is idle

    def start(self, job: ScheduledJob[Any]) -> RayCall | None:
        """A job is the next: returns its call if it was prefetched. Those before it have ended."""
        call = self._sent.pop(job, None)
        self._sent.clear()
        if self._unsent is job:
            self._unsent = None
        return call

    def note(self, seconds: float) -> None:
        """A call has taken so many seconds."""
        self._mean += (seconds - self._mean) * _FOLLOWING if self._mean else seconds

    def overdue_at(self, began: float) -> float:
        """When the prefetched call is given back, if the current one began at `began`; infinite without one."""
        is_held = self._unsent is not None or any(_may_be_withdrawn(call) for call in self._sent.values())
        return began + max(_RETURN_AFTER * self._mean, _RETURN_AFTER_AT_LEAST) if is_held else math.inf

    def fill_or_return(self, began: float) -> None:
        """Before a wait for the call that began at `began`: prefetch a call, or give it back."""
        self._return_withdrawn()
        if self.is_recalled or time.monotonic() >= self.overdue_at(began):
            self.is_recalled = False
            self._take_back()
        elif 0 < self._mean <= _TOO_LONG and not self._sent and not self._is_blocked():
            self._fill()

    def recall(self) -> None:
        """From any thread: give back the call that the actor has not begun."""
        self.is_recalled = True
        for call in list(self._sent.values()):
            self._client.request(call, WITHDRAW)

    def return_all(self) -> None:
        """Give back the calls that have not begun: the actor is dead."""
        self._return_withdrawn()
        self._give_back([])

    def _fill(self) -> None:
        source = self.source
        if source is None or source.is_short or len(self._client.in_flight) >= MOST_IN_FLIGHT:
            return
        if (job := source.take()) is None:
            return
        call = RayCall([job], job.fn, job.payload)
        if not self._client.encoder.can_prefetch(call):
            self._unsent = job
            return
        self._sent[job] = call  # first: a cancellation must find it
        try:
            self._client.send(call)
        except pickle.PicklingError:  # raised again when the job is the next
            del self._sent[job]
            self._unsent = job
            return
        if call.is_unwanted:  # cancelled before `find` could find it
            self._client.request(call, Notice.CANCELLED)

    def _take_back(self) -> None:
        """Ask the actor to give back what was sent; give back what was not."""
        for call in self._sent.values():
            if _may_be_withdrawn(call):
                call.is_withdrawn = True
                self._client.request(call, WITHDRAW)
        self._give_back([])

    def _return_withdrawn(self) -> None:
        """Put calls that the actor has given back into the scheduler's queue."""
        if returned := [job for job, call in self._sent.items() if call.state is CallState.QUEUED]:
            self._give_back(returned)


def _may_be_withdrawn(call: RayCall) -> bool:
    return call.state is CallState.SENT and not call.is_withdrawn
