"""The driver's side of one slot: its thread sends each call to the slot's actor and waits for the answer.

Everything here is the slot's own thread's, but for `leave` and `abort`, which the event loop calls, and `hear`, which
the fleet's thread for notes does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from director._core.states import JobState
from director._core.stream_call import StreamCall
from director._executors._base import LoadFailed, NeverStarted
from director._executors._process import logs
from director._executors._process.raised import error_of
from director._executors._ray.errand import Errand
from director._executors._ray.hand import Hand
from director._executors._ray.inbox import ActorLost
from director._executors._ray.letter import Call
from director._executors._ray.stock import Stock
from director._executors._ray.wire import WITHDRAWN, How, Word
from director._executors._remote import Notice, RemoteSeat
from director._executors._replicas import bearable
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._core.chronicle import Chronicle
    from director._core.job import Job
    from director._core.slot import Slot
    from director._executors._ray.fleet import Fleet
    from director._executors._ray.wire import Answer
    from director._models import Residency

logger = logging.getLogger("director")
_TRIES = 3  # actors that may end before they have begun a call: it is safe to send again then


class RaySeat(RemoteSeat[Errand]):
    """Makes the calls of a slot in an actor.

    Args:
        slot: Whose calls.
        residency: Is told what the actor has loaded.
        chronicle: Takes events and tells the time.
        fleet: Knows the device's claim, and whether its node is there.
    """

    _Call, _BARELY, _AS_STREAM = Call, How.BARELY, How.AS_STREAM
    _stock: Stock

    def __init__(self, slot: Slot, residency: Residency, chronicle: Chronicle, fleet: Fleet) -> None:
        super().__init__(slot.device, chronicle, fleet.terms.grace)
        self._hand = Hand(slot, residency, chronicle, fleet, self.hear)
        self._stock = Stock(self._hand)
        self._is_recalled = False

    def run_batch(self, jobs: list[Job[Any]]) -> Any:
        """Have the actor make one call for all of them; see `run`."""
        return self._make(Call(jobs, jobs[0]._fn, tuple(job._cargo[0] for job in jobs), How.AS_BATCH))

    def close(self) -> None:
        """Let the actor unload its models, and end it."""
        self._hand.dismiss()

    def recall(self) -> None:
        """From any thread: give back what the actor has not begun."""
        self._is_recalled = True
        self._hand.inbox.ring()

    # ---- one call

    def _tell(self, errand: Errand, *, is_cancelled: bool) -> None:
        if (actor := self._hand.actor) is not None:
            actor.notice(errand.number, Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end(self, errand: Errand, moment: float) -> None:
        errand.end(moment)
        self._hand.inbox.ring()

    def _make(self, call: Call) -> Any:
        if self._stock.was_lost(call.jobs[0]):
            raise WorkerDied(None, self._device)
        errand = self._stock.turn_of(call.jobs[0])
        is_sent = errand is not None
        tries_left = _TRIES
        while tries_left:
            if self._hand.claim.is_lost and not is_sent:
                raise NeverStarted(self._device)
            errand = self._errand = errand or self._hand.errand(call)
            try:
                answer = self._run_stream(errand) if call.how == How.AS_STREAM else self._run_call(errand, is_sent)
                if answer.word == Word.STRANGER:
                    self._hand.replace(answer.life)
                    tries_left -= 1
                elif answer.word != Word.WITHDRAWN:  # else nobody has failed
                    return self._result(errand, answer)
            except ActorLost:
                tries_left -= 1
                self._recover_from_loss(errand, tries_left)
            finally:
                self._errand = None
            errand, is_sent = None, False
        raise WorkerDied(None, self._device)

    def _recover_from_loss(self, errand: Errand, tries_left: int) -> None:
        """The actor was lost: see what had begun, and send again what had not.

        Raises:
            WorkerDied: The call of `errand` had, or may have, or it was not the first actor.
        """
        begun = self._hand.await_successor(errand, [errand.number, *self._stock.numbers()])
        self._stock.lose(begun)
        if begun is None or errand.number in begun or not tries_left:
            raise WorkerDied(None, self._device) from None

    def _run_call(self, errand: Errand, is_sent: bool) -> Answer:
        """Send a call, if it was not sent ahead, and wait for its end; meanwhile keep the actor in work."""
        self._hand.inbox.forget_before(errand.number)
        is_over = all(job._stage is not JobState.RUNNING for job in errand.jobs)  # before we could be told
        if not is_sent:
            if is_over:
                raise asyncio.CancelledError
            self._hand.post([errand])
        elif is_over:
            self._hand.present().notice(errand.number, Notice.CANCELLED)
        errand.began = time.monotonic()
        while not self._stock.look(errand):
            if not self._hand.inbox.has(errand.number) or not self._stock:  # else what is next is on its way as well
                self._mind_stock(errand)
            is_waiting = self._stock and not self._stock.is_asking
            until = errand.began + self._stock.patience if is_waiting else math.inf
            until = min(until, self._stock.refill_at(errand.began))
            answer = self._hand.await_answer(errand, until, is_alone=not self._stock and not self._stock.is_asking)
            if answer is not None:
                return answer
        return WITHDRAWN

    def _mind_stock(self, errand: Errand) -> None:
        """Before a wait: have the actor have enough ahead, or ask for what others are free for."""
        is_overdue = time.monotonic() >= errand.began + self._stock.patience
        if self._is_recalled or is_overdue:
            self._is_recalled = False
            if self._stock:
                self._stock.empty()
        else:
            self._stock.fill(errand.began)

    def _run_stream(self, errand: Errand) -> Answer:
        """Have a generator run, and hand its values over as they come."""
        values = self._hand.open_stream(errand)
        while True:
            answer = self._hand.await_value(errand, values)
            if answer is None:
                continue
            if answer.word != Word.YIELDED:
                return answer
            self._hand_over(errand, answer)

    def _hand_over(self, errand: Errand, answer: Answer) -> None:
        """Give a value of a stream to its reader, who may have left or be too slow: the actor then ends the stream."""
        stream: Any = errand.jobs[0]._fn
        if errand.refusal is None and isinstance(stream, StreamCall):
            try:
                stream.bridge.put(answer.value)
            except BaseException as refusal:  # noqa: BLE001 - raised when the stream has ended
                errand.refusal = refusal
                self._hand.present().notice(errand.number, Notice.CANCELLED)

    def _result(self, errand: Errand, answer: Answer) -> Any:
        self._hand.learn(errand, answer)
        if errand.sent:  # no stream
            is_typical = not answer.loaded and errand.call.how == How.USUALLY and answer.word == Word.RETURNED
            ended = self._stock.note(errand, answer, is_typical=is_typical)
            if self._is_timely:
                self._ended = max(errand.jobs[0]._started or 0.0, min(ended, errand.read))
        self._note_news(errand, answer.progress)
        if errand.refusal is not None:
            raise errand.refusal
        if answer.word == Word.RETURNED:
            return answer.value
        (error, fault), model = error_of(answer.value, self._device.label), errand.jobs[0]._options.model
        if fault is not None and fault.kind == "sticky":
            self._hand.give_up()
            self._stock.lose(set())  # it begins nothing more
        if answer.word == Word.NOT_LOADED and model is not None:
            self._chronicle.not_loaded(model, self._device, error)
            raise LoadFailed(model, bearable(model, error))
        raise error

    # ---- what is heard beside answers

    def hear(self, number: int, content: Any) -> None:
        """On the thread that listens: something that the actor tells beside its answers."""
        if not number:
            logs.relay(content, self._device.label)
        elif number < 0:
            logger.warning("%s had more to log than could be sent: %d records are lost", self._device.label, content)
        elif (errand := self._errand) is not None and errand.number == number:
            self._note_news(errand, content)
            self._hand.inbox.ring()  # meanwhile there may be more to send ahead

    def _note_news(self, errand: Errand, told: tuple[int, Any] | None) -> None:
        """Told twice, as it comes and with the answer, for either may be first."""
        if told is not None and errand.is_news(told[0]):
            self._note_progress(errand.jobs, told[1])
