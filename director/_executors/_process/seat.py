"""The parent's side of one slot: its thread sends each call to the slot's child and waits for the answer.

Everything here is the slot's own thread's, but for `leave` and `abort`, which the event loop calls.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import signal
import time
from typing import TYPE_CHECKING, Any

from director._core.stream_call import StreamCall
from director._executors._base import LoadFailed, NeverStarted
from director._executors._process import logs
from director._executors._process.board import Notice
from director._executors._process.call import GOODBYE, Call, Models, Sender
from director._executors._process.child import Child, ChildGone
from director._executors._process.errand import Errand
from director._executors._process.ladder import Ladder, Lost
from director._executors._process.raised import error_of
from director._executors._process.references import describe
from director._executors._process.stock import Stock
from director._executors._process.wire import Answer, How, Tell
from director._executors._remote import RemoteSeat
from director._executors._replicas import bearable
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._core.chronicle import Chronicle
    from director._core.job import Job
    from director._core.slot import Slot
    from director._executors._process.executor import ProcessExecutor
    from director._models import Residency

logger = logging.getLogger("director")
_TRIES = 3  # children that may end before they have taken a call; it has not begun then, and is safe to send again
_UNLOADING = 8.0  # seconds that a dismissed child gets before it is told to end; the crew waits two longer
_RETURNED = Tell.RETURNED  # an enum's member takes a search each time
_FINAL = frozenset({Tell.RETURNED, Tell.RAISED, Tell.NOT_LOADED})


class ProcessSeat(RemoteSeat[Errand]):
    """Makes the calls of a slot in a child, which is started when there is one to make.

    Args:
        slot: Whose calls.
        residency: Is told what the child has loaded.
        chronicle: Takes events and tells the time.
        terms: Of all children.
    """

    _Call, _BARELY, _AS_STREAM = Call, How.BARELY, How.AS_STREAM
    _stock: Stock

    def __init__(self, slot: Slot, residency: Residency, chronicle: Chronicle, terms: ProcessExecutor) -> None:
        super().__init__(slot.device, chronicle, terms.grace)
        self._slot = slot
        self._residency = residency
        self._terms = terms
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: Child | None = None
        self._models = Models()
        self._sender = Sender(self._models, chronicle.time)
        self._stock = Stock(self._sender, terms.max_jobs_per_worker)
        self._is_recalled = False

    def run_batch(self, jobs: list[Job[Any]]) -> Any:
        """Have the child make one call for all of them; see `Seat.run_batch`.

        Raises:
            PicklingError: The call, or what came of it, can't be sent.
            WorkerDied: The child ended in the midst of the call.
        """
        return self._make(Call(jobs, jobs[0]._fn, ([job._cargo[0] for job in jobs],)))

    def close(self) -> None:
        """Let the child unload its models and end."""
        if self._child is not None:
            self._dismiss(self._child)

    def recall(self) -> None:
        """From any thread: give back what the child has not begun."""
        self._is_recalled = True
        os.eventfd_write(self._bell, 1)

    def __del__(self) -> None:
        # Not in `close`: the event loop may be about to ring.
        if hasattr(self, "_bell"):
            os.close(self._bell)

    # ---- one call

    def _tell(self, errand: Errand, *, is_cancelled: bool) -> None:
        errand.notify(Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end(self, errand: Errand, moment: float) -> None:
        errand.end(moment, self._grace)
        os.eventfd_write(self._bell, 1)

    def _make(self, call: Call) -> Any:
        for tries_left in reversed(range(_TRIES)):
            try:
                errand = self._errand = self._stock.find(call.jobs[0]) or Errand(call, self._present_child())
                return self._run_errand(errand)
            except (ChildGone, Lost):
                child = errand.child
                has_begun = child.has_taken(errand.place)
                self._stock.lose()
                code = self._bury(child)
                if has_begun or not tries_left:
                    raise WorkerDied(code, self._device) from None
            finally:
                self._errand = None
        raise AssertionError("unreachable")

    def _run_errand(self, errand: Errand) -> Any:
        """Send a call, if it was not sent ahead, and wait for its end."""
        child, call = errand.child, errand.call
        is_sent = self._stock.find(call.jobs[0]) is errand
        self._stock.start(errand)
        if not is_sent:
            if errand.is_unwanted:  # since before we could be told
                raise asyncio.CancelledError
            letter = self._sender.letter(call, child)
            errand.is_typical = not letter.introduces
            child.post(child.frame(letter, errand.number))
        errand.begin(time.monotonic())
        value = self._outcome(errand)
        call.introduced(child)
        return value

    def _outcome(self, errand: Errand) -> Any:
        """Wait for the end of the call, and take note of what comes before it; meanwhile keep the child in work."""
        child, now = errand.child, errand.began
        while True:
            if not child.has_answers:
                self._mind_stock(errand, now)
                if errand.is_brief:
                    child.let_be(self._stock.rest)
            answer = child.answer(self._patience(errand, now))
            if answer is None:
                errand.hurry()
            elif answer.kind in _FINAL:
                if answer.number == errand.number:
                    return self._finish(errand, answer)
            elif answer.kind == Tell.YIELDED:
                self._hand_over(errand, answer)
            else:
                self._note(errand, answer)
            now = time.monotonic()

    def _mind_stock(self, errand: Errand, now: float) -> None:
        """Before a wait: have the child have enough ahead, or give back what others are free for."""
        stock, supply = self._stock, self._stock.supply
        if not stock and (supply is None or supply.is_scarce):
            self._is_recalled = False
            return
        # One that lasts longer than those before it: what is behind it is better off elsewhere.
        if self._is_recalled or now >= errand.began + stock.pace.patience:
            self._is_recalled = False
            if stock:
                stock.empty(errand.child, errand)
        else:
            stock.fill(errand.child)

    def _patience(self, errand: Errand, now: float) -> float | None:
        """Seconds to wait for an answer; `None` for ever."""
        moment = errand.next_look()
        if self._stock:
            moment = min(moment, errand.began + self._stock.pace.patience)
        return None if moment == math.inf else max(0.0, moment - now)

    def _finish(self, errand: Errand, answer: Answer) -> Any:
        """The call has ended."""
        child = errand.child
        if errand.is_typical:
            self._stock.pace.note(answer.began, answer.ended, child.read_at)
        if self._is_timely:
            self._ended = max(answer.ended, errand.jobs[0]._started or 0.0)
        if errand.refusal is not None:
            raise errand.refusal
        return self._result(child, errand.jobs[0], answer)

    def _result(self, child: Child, job: Job[Any], answer: Answer) -> Any:
        try:
            content = child.content(answer)
        except Exception as refusal:
            what = "result" if answer.kind == Tell.RETURNED else "exception"
            raise pickle.PicklingError(f"the {what} of {job.name} can't be unpickled: {describe(refusal)}") from refusal
        if answer.kind == _RETURNED:
            return content
        (error, fault), model = error_of(content, self._device.label), job._options.model
        if fault is not None and fault.kind == "sticky":
            self._give_up(child)
        if answer.kind == Tell.NOT_LOADED and model is not None:
            self._chronicle.not_loaded(model, self._device, error)
            raise LoadFailed(model, bearable(model, error))
        raise error

    def _hand_over(self, errand: Errand, answer: Answer) -> None:
        """Give a value of a stream to its reader, who may have left or be too slow: the child then ends the stream."""
        stream: Any = errand.jobs[0]._fn
        if errand.refusal is None and isinstance(stream, StreamCall):
            try:
                stream.bridge.put(*errand.child.content(answer))
            except BaseException as refusal:  # noqa: BLE001 - raised when the stream has ended
                errand.refusal = refusal
                errand.notify(Notice.CANCELLED)
        errand.child.credits.give()

    def _note(self, errand: Errand, answer: Answer) -> None:
        """Take in what a child says beside its outcomes; it must not harm the call that runs."""
        child = errand.child
        try:
            content = child.content(answer)
            if answer.kind == Tell.READY:
                child.is_ready = True
            elif answer.kind == Tell.LOGGED:
                logs.relay(content, self._device.label)
            elif answer.kind == Tell.LOADED:
                errand.is_typical = False
                self._note_loaded(child, *content)
            elif answer.number == errand.number:
                self._note_progress(errand.jobs, content)
        except Exception:
            logger.exception("what the process of %s says can't be understood", self._device.label)

    def _note_loaded(self, child: Child, number: int, seconds: float) -> None:
        child.loaded.add(number)
        model = self._models.by_number(number)
        self._residency.add(model, self._slot)
        self._slot.note_load(seconds)
        self._chronicle.loaded(model, self._device, seconds)

    # ---- the child

    def _present_child(self) -> Child:
        child = self._child
        most = self._terms.max_jobs_per_worker
        if child is not None and most is not None and child.calls >= most:
            self._dismiss(child)
        if self._child is None:
            try:
                self._child = Child(self._device, self._bell)
            except OSError as error:
                raise NeverStarted(self._device, f"its process can't be started: {error}") from error
        return self._child

    def _dismiss(self, child: Child) -> None:
        ladder = Ladder(self._terms.grace)
        ladder.begin(time.monotonic() + _UNLOADING)
        errand = Errand(Call([], None, ()), child)
        try:
            child.post(child.frame(GOODBYE, errand.number))
            while True:
                answer = child.answer(ladder.patience(time.monotonic()))
                if answer is not None:
                    self._note(errand, answer)
                ladder.climb(time.monotonic(), child.signal)
        except (ChildGone, Lost):
            self._bury(child)

    def _give_up(self, child: Child) -> None:
        """The child can't use its device any more, and may hang when it is asked to unload something."""
        self._stock.lose()
        child.signal(signal.SIGKILL)
        self._bury(child)

    def _bury(self, child: Child) -> int | None:
        """The child is gone, and everything that it had loaded."""
        self._child = None
        for number in child.loaded:
            model = self._models.by_number(number)
            self._residency.remove(model, self._slot)
            self._chronicle.unloaded(model, self._device)
        code = child.bury()
        if code is None:
            logger.warning("process %d of %s does not end: it is left behind", child.process, self._device.label)
        return code
