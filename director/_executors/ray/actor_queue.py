"""The call that an actor has before its turn, so that between two calls it does not wait for the network.

One at most: with the one that is made that is two on their way. The slot's thread's; `find` and `first` may be called
from others.
"""

from __future__ import annotations

import math
import pickle
import time
from typing import TYPE_CHECKING, Any

from director._executors.ray.messages import WITHDRAW
from director._executors.ray.pending_call import RayCall
from director._executors.remote.runner import CallState, RemoteQueue
from director._ipc.protocol import Notice

if TYPE_CHECKING:
    from director._executors.ray.actor_client import ActorClient
    from director._jobs.job import ScheduledJob

MOST_IN_FLIGHT = 2
_TOO_LONG = 0.5  # seconds of a call against which the time between two is nothing
_FOLLOWING = 0.2  # weight of the last call in the mean
_PATIENCE = 2.0  # times the mean that a call may take before the one behind it goes back
_SHORTEST_PATIENCE = 0.1  # seconds; machines falter


class ActorQueue(RemoteQueue[RayCall]):
    """What one actor has ahead.

    Args:
        client: Sends.
    """

    def __init__(self, client: ActorClient) -> None:
        super().__init__()
        self._client = client
        self._mean = 0.0  # seconds of a call; 0 while nothing is known
        self.is_recalled = False  # set by any thread: others are free for what is here

    def turn_of(self, job: ScheduledJob[Any]) -> RayCall | None:
        """The turn of a job has come: its call if it was sent ahead. What is before it is over."""
        call = self._sent.pop(job, None)
        self._sent.clear()
        if self._unsent is job:
            self._unsent = None
        return call

    def note(self, seconds: float) -> None:
        """A call has taken so long."""
        self._mean += (seconds - self._mean) * _FOLLOWING if self._mean else seconds

    def overdue_at(self, began: float) -> float:
        """When a call whose turn had come at `began` has taken so long that the one behind it goes back."""
        is_held = self._unsent is not None or any(_may_be_withdrawn(call) for call in self._sent.values())
        return began + max(_PATIENCE * self._mean, _SHORTEST_PATIENCE) if is_held else math.inf

    def keep(self, began: float) -> None:
        """Before a wait for a call whose turn had come at `began`: have one ahead, or give it back."""
        self._return_withdrawn()
        if self.is_recalled or time.monotonic() >= self.overdue_at(began):
            self.is_recalled = False
            self._take_back()
        elif 0 < self._mean <= _TOO_LONG and not self._sent and not self._is_blocked():
            self._fill()

    def recall(self) -> None:
        """From any thread: give back what the actor has not begun."""
        self.is_recalled = True
        for call in list(self._sent.values()):
            self._client.request(call, WITHDRAW)

    def return_all(self) -> None:
        """Give back what has not begun, now that the actor is gone."""
        self._return_withdrawn()
        self._give_back([])

    def _fill(self) -> None:
        source = self.source
        if source is None or source.is_short or len(self._client.in_flight) >= MOST_IN_FLIGHT:
            return
        if (job := source.take()) is None:
            return
        call = RayCall([job], job.fn, job.payload)
        if not self._client.encoder.may_go_ahead(call):
            self._unsent = job
            return
        self._sent[job] = call  # before it is sent: from then on its end may be told
        try:
            self._client.send(call)
        except pickle.PicklingError:  # it is raised again when it is the turn of the job
            del self._sent[job]
            self._unsent = job
            return
        if call.is_unwanted:  # it was over before `find` could find it
            self._client.request(call, Notice.CANCELLED)

    def _take_back(self) -> None:
        """Ask for what was sent, and give back at once what was not."""
        for call in self._sent.values():
            if _may_be_withdrawn(call):
                call.is_withdrawn = True
                self._client.request(call, WITHDRAW)
        self._give_back([])

    def _return_withdrawn(self) -> None:
        """Give to others what the actor has said that it does not begin."""
        if back := [job for job, call in self._sent.items() if call.state is CallState.QUEUED]:
            self._give_back(back)


def _may_be_withdrawn(call: RayCall) -> bool:
    return call.state is CallState.SENT and not call.is_withdrawn


_DRIFT = 1e-4  # seconds in a second, more than any quartz


class Offset:
    """What to add to another clock's seconds."""

    __slots__ = ("_at", "_least", "_most")

    def __init__(self) -> None:
        self._least, self._most = -math.inf, math.inf
        self._at = 0.0

    def here(self, began: float, ended: float, sent: float, read: float) -> float:
        """When a call has ended, in our time.

        Args:
            began: By the other clock.
            ended: The same.
            sent: By ours, before the one.
            read: The same, after the other.
        """
        slack = _DRIFT * max(0.0, read - self._at)
        self._at = read
        least, most = max(self._least - slack, sent - began), min(self._most + slack, read - ended)
        if least > most:  # a clock was set, or it is another machine's
            least, most = sent - began, read - ended
        self._least, self._most = least, most
        return ended + (least + most) / 2
