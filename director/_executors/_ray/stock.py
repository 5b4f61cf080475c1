"""Calls that an actor has before their turn, so that between two of them it does not wait for the network.

Each is a call of Ray's, sent and not begun. It is taken back by telling the actor its number: what the actor has not
begun by then it never begins. The slot's thread's; only `find` may be called from others.
"""

from __future__ import annotations

import math
import time
from math import ceil
from typing import TYPE_CHECKING, Any

from director._core.states import JobState
from director._executors._process.pace import MOST, Pace
from director._executors._ray.errand import Errand
from director._executors._ray.inbox import TAKEN_BACK
from director._executors._ray.letter import Call
from director._executors._ray.offset import Offset
from director._executors._ray.reply import LIGHT, weight
from director._executors._remote import RemoteStock

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._ray.hand import Hand
    from director._executors._ray.wire import Answer

_RUNNING = JobState.RUNNING
_HEAVY = 1 << 20  # bytes of arguments that are not sent ahead: they would lie in the object store for nothing
_WAY = 0.02  # seconds of work ahead beside what the pace demands: calls are sent by twos and more, and to and fro
_PATIENCE = 0.1  # seconds that a call may take in any case: taking back costs a pause, and machines falter
_QUICK = 0.003  # seconds in which calls can be handed in


class Stock(RemoteStock[Errand]):
    """What one actor has ahead.

    Args:
        hand: Sends.
    """

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        self.pace = Pace()
        self._hand = hand
        self._offset = Offset()
        self._lost: set[Job[Any]] = set()  # begun, or perhaps begun, in an actor that is gone
        self.is_asking = False  # for what is taken back
        self.is_light = True  # what the calls return: several answers may travel together

    @property
    def patience(self) -> float:
        """Seconds that a call may take, before those behind it are better off elsewhere."""
        return max(self.pace.patience, _PATIENCE)

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
        self.is_light = weight(answer.value) <= LIGHT
        began, ended, way = self._offset.here(answer.began, answer.ended, errand.sent, errand.read)
        if is_typical:
            self.pace.note(began, ended, errand.read + way)  # what is sent in answer is under way as long
        return ended

    def fill(self, began: float) -> None:
        """Send more ahead, as the pace demands: not one by one, for a letter of many costs hardly more than of one.

        Args:
            began: When the turn of the call that runs had come.
        """
        depth = self._depth
        if self.supply is None or not self._hand.life or self.is_asking or self._is_blocked():
            return
        if len(self._sent) > depth // 2:
            return
        errands: list[Errand] = []
        while len(self._sent) < depth and (job := self.supply.take()) is not None:
            if sum(map(weight, job._cargo)) > _HEAVY:
                self._unsent = job
                break
            errands.append(self._errand(job))
        if errands:
            self._send(errands, began)

    def refill_at(self, began: float) -> float:
        """The moment at which to look for more, towards the end of a call that began so; infinite for never."""
        moment = began + self.pace.mean - 2 * self.pace.horizon
        is_short = len(self._sent) <= self._depth // 2 and not self.is_asking and self._unsent is None
        return moment if is_short and moment > time.monotonic() else math.inf

    def empty(self) -> None:
        """Ask for what the actor has not begun, to be given to others."""
        if not self._sent:
            self._give_back([])
        elif not self.is_asking:
            self.is_asking = True
            numbers = [errand.number for errand in self._sent.values()]
            self._hand.inbox.expect((TAKEN_BACK,), self._hand.present().withdraw(numbers))

    def look(self, current: Errand) -> bool:
        """Give to others what the actor has said that it does not begin.

        Args:
            current: The call whose turn it is, which may be among them if it was sent ahead.

        Returns:
            Whether it is: it has to be sent anew, and before anything else is.
        """
        inbox = self._hand.inbox
        taken, inbox.refused = inbox.refused, set()
        if self.is_asking and (reply := inbox.take(TAKEN_BACK)) is not None:
            self.is_asking = False
            taken.update(reply if isinstance(reply, list) else ())  # else it is gone, and `lose` comes next
        if not taken:
            return False
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
        lost = [job for job, errand in self._sent.items() if begun is None or errand.number in begun]
        for job in lost:
            del self._sent[job]
        self._lost.update(lost)
        self._give_back(list(self._sent))

    @property
    def _depth(self) -> int:
        """Calls to have ahead."""
        pace = self.pace
        return pace.depth and min(MOST, ceil((pace.horizon + _WAY) / pace.mean))

    def _errand(self, job: Job[Any]) -> Errand:
        errand = self._sent[job] = self._hand.errand(Call([job], job._fn, job._cargo))
        return errand  # found by `find` before it is sent: from then on its end may be told

    def _send(self, errands: list[Errand], began: float) -> None:
        """Send calls ahead; what can't be sent waits for its turn."""
        for letter in [errands] if self.is_light else [[errand] for errand in errands]:
            try:
                self._hand.post(letter, is_handed=self._may_hand(letter[0], began))
            except Exception:  # noqa: BLE001 - it will be raised again when it is the turn of its job
                self._keep_unsent(errands[errands.index(letter[0]) :])
                return
            self._hand.watch(letter)
        for errand in errands:
            if errand.jobs[0]._stage is not _RUNNING:  # it was over before `find` could find it
                self._hand.present().notice(errand.number, 1)

    def _may_hand(self, first: Errand, began: float) -> bool:
        """Whether calls may go past Ray's queue: it is empty, and they are there before the actor rests."""
        before = [errand for errand in self._sent.values() if errand.number < first.number]
        rests_at = began + self.pace.mean * (1 + len(before))
        return self.is_light and rests_at > time.monotonic() + _QUICK and all(errand.is_handed for errand in before)

    def _keep_unsent(self, errands: list[Errand]) -> None:
        """The first waits for its turn, for it may be the one that can't be sent; the others go back."""
        jobs = [errand.jobs[0] for errand in errands]
        self._unsent = jobs[0]
        del self._sent[jobs[0]]
        others = jobs[1:]
        for job in others:
            del self._sent[job]
        if others and self.supply is not None:
            self.supply.give_back(others)
