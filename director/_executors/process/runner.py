"""The runner of a slot with a child process: the slot's thread sends each call to the child and waits for the answer.

For the slot's thread; `abandon` and `abort` for the event loop.
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
from weakref import WeakKeyDictionary

from director._devices.footprints import free_memory, load_size
from director._executors.base import NeverStarted, NotSent
from director._executors.process.child_process import ChildGone, ChildProcess
from director._executors.process.encoding import CallEncoder, ProcessCall
from director._executors.process.prefetch_queue import ChildPrefetchQueue
from director._executors.process.termination import Termination, Unkillable
from director._executors.remote.batch_items import unpack_items
from director._executors.remote.calls import CallState
from director._executors.remote.replicas import sleep_here
from director._executors.remote.runner import RemoteRunner
from director._ipc import log_relay as logs
from director._ipc.by_name import describe
from director._ipc.exceptions import error_of
from director._ipc.frames import Answer, AnswerKind, WireBroken
from director._ipc.protocol import CallStyle
from director._ipc.shared_page import Notice
from director._jobs.calls import LocalCall
from director._untrusted.numbers import size_text
from director._untrusted.objects import log_error
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._executors.base import MemoryEvents
    from director._executors.process.child_process import ChildCall
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model

logger = logging.getLogger("director")
_TRIES = 3  # children that may exit before they have received a call; it has not begun, and is sent again
_UNLOADING = 8.0  # seconds that a dismissed child gets before SIGTERM; the runtime waits two longer
_RETURNED, _STREAM, _BATCH = AnswerKind.RETURNED, CallStyle.STREAM, CallStyle.BATCH  # looking up members is slow
_YIELDED, _ENDED, _LOST = AnswerKind.YIELDED, CallState.ENDED, CallState.LOST
_runners: WeakKeyDictionary[MemoryEvents, int] = WeakKeyDictionary()  # how many each open Director has
_ABOUT_THE_CHILD = frozenset({AnswerKind.LOGGED, AnswerKind.LOADED})


class ProcessRunner(RemoteRunner["ChildCall"]):
    """Makes the calls of a slot in a child, which is started when there is one to make.

    Args:
        slot: The slot.
        events: Takes reports; has the clock.
        grace: Seconds between asking a call to end, SIGTERM and SIGKILL.
        most: Calls that one child may make; `None` for no bound.
    """

    _Call = ProcessCall
    _queue: ChildPrefetchQueue

    def __init__(self, slot: SlotInfo, events: MemoryEvents, grace: float, most: int | None) -> None:
        super().__init__(slot, events, grace)
        self._most = most
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: ChildProcess | None = None
        self._encoder = CallEncoder(self._models, events.time)
        self._queue = ChildPrefetchQueue(self._encoder, most)
        self._is_recalled = False
        self._free: int | None = None  # bytes of the device before the load of the current call, if they are known
        _runners[events] = _runners.get(events, 0) + 1

    def _batch_args(self, items: list[Any]) -> tuple[Any, ...]:
        return (items,)

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Have a child load the model; it may make as many calls as before."""
        if not self._is_prepared(jobs[0]):
            super().prepare(jobs)
            if self._child is not None:
                self._child.count -= 1

    def _is_prepared(self, job: ScheduledJob[Any]) -> bool:
        child, model, most = self._child, job.options.model, self._most
        if model is None and isinstance(job.fn, LocalCall):  # a lease needs no child
            return True
        if child is None or not child.is_ready or (most is not None and child.count >= most):
            return False
        return model is None or self._models.has(model)

    def close(self) -> None:
        """Have the child unload its models and exit."""
        if self._child is not None:
            self._dismiss(self._child)

    def recall_prefetched(self) -> None:
        """From any thread: give back what the child has not begun."""
        self._is_recalled = True
        os.eventfd_write(self._wakeup, 1)

    def __del__(self) -> None:
        # Not in `close`: the event loop may write to it at any time.
        if hasattr(self, "_wakeup"):
            os.close(self._wakeup)

    # ---- one call

    def _notify(self, call: ChildCall, *, is_cancelled: bool) -> None:
        call.notify(Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end_at(self, call: ChildCall, moment: float) -> None:
        call.end(moment, self._grace)
        os.eventfd_write(self._wakeup, 1)

    def _run(self, job: ScheduledJob[Any]) -> Any:
        call = self._queue.find(job)
        return super()._run(job) if call is None else self._make(call)

    def _make(self, call: ChildCall) -> Any:
        self._call = call
        self._queue.start(call)
        try:
            for _ in range(_TRIES):
                if call.state is _LOST:  # perhaps while it was prefetched
                    break
                try:
                    return self._run_call(call)
                except (ChildGone, Unkillable, WireBroken) as error:
                    self._reap(error)
            raise WorkerDied(None if call.child is None else call.child.exitcode, self._device)
        finally:
            self._call = None

    def _run_call(self, call: ChildCall) -> Any:
        """Send a call, unless it was prefetched, and wait for its end."""
        if call.answer is not None and call.child is not None:  # it arrived during the call before
            return self._finish(call, call.child, call.answer)
        child = None if call.state is CallState.QUEUED else call.child
        was_prefetched = child is not None
        if child is None:
            child = self._present_child()
            if call.is_unwanted:  # since before it could be notified
                call.move(_ENDED)
                raise asyncio.CancelledError
            model = call.jobs[0].options.model
            if model is not None and self._models.has(model):
                model = None
            self._free = None if model is None or not self._events.is_accounted(model) else free_memory(self._device)
            self._send(call, child)
            if model is not None:
                self._models.note_loading(model)
        elif call.is_unwanted:  # it began before it could be taken back
            call.notify(Notice.CANCELLED)
        call.begin(time.monotonic(), child.is_ready)
        value = self._outcome(call, child, was_prefetched)
        if call.function is not None:
            child.known.add(call.function)
        return value

    def _send(self, call: ChildCall, child: ChildProcess) -> None:
        try:
            message = self._encoder.encode(call, child)
            call.is_typical = not message.is_first_use
            try:
                child.send(call, message)
            except BlockingIOError:  # the socket is full of calls that have ended: take them back
                self._queue.return_all(child.take_back())
                child.send(call, message)
        except WireBroken:
            raise
        except BaseException as error:
            call.move(_ENDED)
            if len(call.jobs) > 1:
                raise NotSent from error
            raise

    def _outcome(self, call: ChildCall, child: ChildProcess, look: bool) -> Any:
        """Wait for the end of the call, handle the answers before it, and prefetch calls meanwhile.

        Args:
            call: The current call.
            child: The child that makes it.
            look: Whether there may be an answer already.
        """
        now, is_one_of_many = call.began, look or call.style == _STREAM
        while True:
            received = child.receive(is_one_of_many) if look else None
            look = True
            if received is None:
                self._fill_or_return(call, child, now)
                if call.style <= _BATCH and (delay := self._queue.read_delay):
                    child.sleep_until_exit(delay)
                child.wait(self._timeout(call, now))
                now = time.monotonic()
                if now >= call.next_check():
                    call.escalate(child)
                continue
            answer, whose = received
            if whose is not call:
                if whose is not None and whose.state is _ENDED and self._queue.find(whose.jobs[0]) is whose:
                    whose.answer = answer  # the child made it before this call, which was sent again
                else:
                    self._note(call, child, answer, is_its_own=False)
            elif call.state is _ENDED:
                return self._finish(call, child, answer)
            elif answer.kind == _YIELDED:
                if not self._put_value(call, child.content, answer):
                    child.drop(answer)
                child.grant(call, answer)
            else:
                self._note(call, child, answer, is_its_own=True)

    def _fill_or_return(self, call: ChildCall, child: ChildProcess, now: float) -> None:
        """Before a wait: prefetch more calls, or give back those that were recalled."""
        queue, source = self._queue, self._queue.source
        if self._is_preparing:  # what is sent now would be made before the call that needs the model
            return
        if not queue and (source is None or source.is_short):
            self._is_recalled = False
            return
        # A call that takes longer than those before it: give back those behind it.
        if self._is_recalled or now >= call.began + queue.depth.return_after:
            self._is_recalled = False
            if queue:
                queue.return_all(child.take_back(call))
        else:
            queue.fill(child)

    def _timeout(self, call: ChildCall, now: float) -> float | None:
        """Seconds to wait for an answer; `None` for no limit."""
        moment = call.next_check()
        if self._queue:
            moment = min(moment, call.began + self._queue.depth.return_after)
        return None if moment == math.inf else max(0.0, moment - now)

    def _finish(self, call: ChildCall, child: ChildProcess, answer: Answer) -> Any:
        """The call has ended."""
        if call.is_typical:
            self._queue.depth.note(answer.began, answer.ended, child.read_at)
        if self._is_timely:
            self._ended = max(answer.ended, call.jobs[0].started_at or 0.0)
        if call.refusal is not None:
            child.drop(answer)
            raise call.refusal
        return self._result(child, call, answer)

    def _result(self, child: ChildProcess, call: ChildCall, answer: Answer) -> Any:
        job = call.jobs[0]
        try:
            content = child.content(answer)
        except BaseException as refusal:
            what = "result" if answer.kind == _RETURNED else "exception"
            raise pickle.PicklingError(f"the {what} of {job.name} can't be unpickled: {describe(refusal)}") from refusal
        if answer.kind == _RETURNED:
            return content if call.style != _BATCH else unpack_items(content, job.name, self._device.label)
        is_loaded, is_read = answer.kind != AnswerKind.NOT_LOADED, answer.kind != AnswerKind.NOT_READ
        raise self._failure(call, error_of(content, self._device.label), is_loaded=is_loaded, is_read=is_read)

    def _replace(self) -> None:
        assert self._child is not None
        self._child.signal(signal.SIGKILL)  # it may hang if it unloads a model
        self._reap(None)

    def _note(self, call: ChildCall, child: ChildProcess, answer: Answer, *, is_its_own: bool) -> None:
        """Handle an answer that is no outcome; an error in it must not fail the current call."""
        kind = answer.kind
        if kind == AnswerKind.READY:
            child.is_ready = True
        elif kind not in _ABOUT_THE_CHILD and not is_its_own:
            child.drop(answer)
        else:
            try:
                content = child.content(answer)
                if kind == AnswerKind.LOGGED:
                    logs.relay(content, self._device.label)
                elif kind == AnswerKind.LOADED:
                    call.is_typical = False
                    self._note_loaded(*content)
                elif kind == AnswerKind.REPORTED:
                    self._events.progressed(call.jobs, content)
            except BaseException as error:  # noqa: BLE001 - raised by its class
                log_error(logger, error, "an answer from the process of %s can't be read", self._device.label)

    def _note_loaded(self, number: int, seconds: float, taken: tuple[Any, ...] | None = None) -> None:
        free = None if self._free is None else free_memory(self._device)
        size = load_size(taken, self._free, free)
        self._models.note_loaded(number, seconds, None if size is None else size._replace(is_apart=True))

    def _has_process(self) -> bool:
        return self._child is not None

    can_sleep = True

    def sleep(self, model: Model[Any]) -> tuple[bool, int | None]:
        """Have the child put a model to sleep. If the child is lost, so is the model."""
        number = self._models.find(model)
        assert number is not None
        self._events.unloading(model, self._slot)
        is_asleep, freed = self._call_there(sleep_here, number, f"putting {model.name} to sleep")
        if not is_asleep or not self._models.note_asleep(number):
            self._note_unloaded(number, freed)
        return is_asleep, freed

    def _freed_by(self, model: Model[Any], freed: int | None) -> int | None:
        child, missing = self._child, self._events.missing(model, self._slot, freed)
        if not missing or child is None:
            return freed
        text = "%s was unloaded from %s, and its process still has %s of its memory: it is replaced"
        logger.warning(text, model.name, self._device.label, size_text(missing))
        self._dismiss(child)
        return None  # all of it, with the process

    # ---- the child

    def _present_child(self) -> ChildProcess:
        """The child, started if there is none.

        Raises:
            NeverStarted: The system can't start one now.
        """
        child, most = self._child, self._most
        if child is not None and most is not None and child.count >= most:
            self._dismiss(child)
        if self._child is None:
            try:
                self._child = ChildProcess(self._device, self._wakeup, _runners[self._events])
            except OSError as error:
                self._events.process_ended(self._slot)
                raise NeverStarted(self._device, f"its process can't be started: {error}") from error
        return self._child

    def _dismiss(self, child: ChildProcess) -> None:
        termination = Termination(self._grace)
        termination.begin(time.monotonic() + _UNLOADING)
        nothing: ChildCall = ProcessCall([], None, ())
        try:
            self._queue.return_all(child.take_back())
            self._models.note_unloading()
            child.dismiss()
            while True:
                if (received := child.receive()) is not None:
                    self._note(nothing, child, received[0], is_its_own=False)
                    continue
                child.wait(termination.timeout(time.monotonic()))
                termination.escalate(time.monotonic(), child.signal)
        except (OSError, ChildGone, Unkillable, WireBroken) as error:
            self._reap(error)

    def _reap(self, error: Exception | None) -> None:
        """The child is lost, with its models; calls that had not begun go back to the queue."""
        child, self._child = self._child, None
        assert child is not None
        if isinstance(error, (OSError, WireBroken)):
            logger.error("ending the process of %s, which broke the protocol: %s", self._device.label, error)
            child.signal(signal.SIGKILL)
        self._queue.return_all(child.lose())
        self._models.lose()
        self._events.process_ended(self._slot)
        if child.reap() is None:
            logger.warning("process %d of %s does not exit and is abandoned", child.pid, self._device.label)
