"""Calls that an actor has before their turn, so that between two of them it does not wait for the network.

Each is a call of Ray's, sent and not begun. It is taken back by telling the actor its number: what the actor has not
begun by then it never begins. The slot's thread's; only `find` may be called from others.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from director._core.states import JobState
from director._executors._process.pace import Pace
from director._executors._ray.letter import Call
from director._executors._ray.offset import Offset

if TYPE_CHECKING:
    from director._core.job import Job
    from director._core.supply import Supply
    from director._executors._ray.errand import Errand
    from director._executors._ray.hand import Hand
    from director._executors._ray.wire import Answer

_RUNNING = JobState.RUNNING
_HEAVY = 1 << 20  # bytes of arguments that are not sent ahead: they would lie in the object store for nothing
_TAKEN_BACK = -1  # under which the actor's reply is posted


class Stock:
    """What one actor has ahead.

    Args:
        hand: Sends.
    """

    def __init__(self, hand: Hand) -> None:
        self.supply: Supply | None = None
        self.pace = Pace()
        self._hand = hand
        self._offset = Offset()
        self._sent: dict[Job[Any], Errand] = {}  # in their order
        self._unsent: Job[Any] | None = None  # taken from the supply, and not fit to be sent ahead
        self._lost: set[Job[Any]] = set()  # begun, or perhaps begun, in an actor that is gone
        self.is_asking = False  # for what is taken back

    def __bool__(self) -> bool:
        return bool(self._sent) or self._unsent is not None

    def find(self, job: Job[Any]) -> Errand | None:
        """From any thread: the errand of a job that was sent ahead."""
        return self._sent.get(job)

    def turn_of(self, job: Job[Any]) -> Errand | None:
        """The turn of a job has come: its errand if it was sent ahead. Those before it are over."""
        errand = self._sent.get(job)
        for other in list(self._sent):
            if errand is None or self._sent[other].number <= errand.number:
                del self._sent[other]
        if self._unsent is job:
            self._unsent = None
        return errand

    def was_lost(self, job: Job[Any]) -> bool:
        """Whether its call went down with an actor before its turn."""
        was_lost = job in self._lost
        self._lost.discard(job)
        return was_lost

    def note(self, errand: Errand, answer: Answer, *, is_typical: bool) -> float:
        """A call has ended; the moment by our own clock.

        Args:
            errand: Whose.
            answer: Of it.
            is_typical: It says how long a call takes, and how late one hears of its end.
        """
        began, ended, way = self._offset.here(answer.began, answer.ended, errand.sent, errand.read)
        if is_typical:
            self.pace.note(began, ended, errand.read + way)  # what is sent in answer is under way as long
        return ended

    def fill(self) -> None:
        """Send more ahead, as the pace demands."""
        depth = self.pace.depth
        if self.supply is None or not self._hand.life or self.is_asking or self._is_blocked():
            return
        while len(self._sent) < depth and (job := self.supply.take()) is not None:
            if not self._send(job):
                self._unsent = job
                return

    def refill_at(self, began: float) -> float:
        """The moment at which to look for more, towards the end of a call that began so; infinite for never."""
        moment = began + self.pace.mean - 2 * self.pace.horizon
        is_short = len(self._sent) < self.pace.depth and not self.is_asking and self._unsent is None
        return moment if is_short and moment > time.monotonic() else math.inf

    def empty(self) -> None:
        """Ask for what the actor has not begun, to be given to others."""
        if not self._sent:
            self._give_back([])
        elif not self.is_asking:
            self.is_asking = True
            numbers = [errand.number for errand in self._sent.values()]
            self._hand.expect(_TAKEN_BACK, self._hand.present().withdraw(numbers))

    def look(self, current: Errand) -> bool:
        """Give to others what the actor has answered that it has not begun.

        Args:
            current: The call whose turn it is, which may be among them if it was sent ahead.

        Returns:
            Whether it is: it has to be sent anew, and before anything else is.
        """
        future = self._hand.posted(_TAKEN_BACK) if self.is_asking else None
        if future is None:
            return False
        self.is_asking = False
        if future.exception() is not None:  # it is gone, and `lose` comes next
            return False
        taken = set(future.result())
        self._give_back([job for job, errand in self._sent.items() if errand.number in taken])
        return current.number in taken

    def numbers(self) -> list[int]:
        """Of those that were sent."""
        return [errand.number for errand in self._sent.values()]

    def lose(self, begun: set[int] | None) -> None:
        """The actor is gone.

        Args:
            begun: Which had begun there; `None` if nobody can tell.
        """
        self.is_asking = False
        self._hand.posted(_TAKEN_BACK)
        lost = [job for job, errand in self._sent.items() if begun is None or errand.number in begun]
        for job in lost:
            del self._sent[job]
        self._lost.update(lost)
        self._give_back(list(self._sent))

    def _is_blocked(self) -> bool:
        """Whether one that could not be sent ahead still waits for its turn."""
        if self._unsent is not None and self._unsent._stage is not _RUNNING:
            self._unsent = None
        return self._unsent is not None

    def _send(self, job: Job[Any]) -> bool:
        """Send a call ahead; False if that can't be done."""
        if sum(map(_weight, job._cargo)) > _HEAVY:
            return False
        errand = self._hand.errand(Call([job], job._fn, job._cargo))
        self._sent[job] = errand  # before it is sent: from then on its end may be told
        try:
            self._hand.post(errand)
            self._hand.watch(errand)
        except Exception:  # noqa: BLE001 - it will be raised again when it is the job's turn
            del self._sent[job]
            return False
        if job._stage is not _RUNNING:  # it was over before `find` could find it
            self._hand.present().notice(errand.number, 1)
        return True

    def _give_back(self, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            del self._sent[job]
        if self._is_blocked() and self._unsent is not None:
            jobs.append(self._unsent)
            self._unsent = None
        if jobs and self.supply is not None:
            self.supply.give_back(jobs)


def _weight(argument: Any) -> int:
    """Bytes of an argument, as far as it tells."""
    size = getattr(argument, "nbytes", None)
    if isinstance(size, int):
        return size
    return len(argument) if isinstance(argument, (bytes, bytearray, memoryview, str)) else 0
