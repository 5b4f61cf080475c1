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

from director._executors.base import LoadFailed, NeverStarted, NotSent
from director._executors.process.child_process import ChildGone, ChildProcess
from director._executors.process.child_queue import ChildQueue
from director._executors.process.encoding import CallEncoder, ModelNumbers, ProcessCall
from director._executors.process.termination import Termination, Unkillable
from director._executors.remote.batch_items import joined
from director._executors.remote.runner import CallState, RemoteRunner
from director._executors.replicas import bearable
from director._ipc import log_relay as logs
from director._ipc.by_name import describe
from director._ipc.exceptions import error_of
from director._ipc.frames import Answer, AnswerKind, WireBroken
from director._ipc.protocol import CallStyle
from director._ipc.shared_page import Notice
from director._jobs.calls import StreamCall
from director._untrusted.objects import log_error
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._executors.process.child_process import ChildCall
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import SlotInfo
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")
_TRIES = 3  # children that may exit before they have received a call; it has not begun, and is sent again
_UNLOADING = 8.0  # seconds that a dismissed child gets before SIGTERM; the runtime waits two longer
_RETURNED, _STREAM, _BATCH = AnswerKind.RETURNED, CallStyle.STREAM, CallStyle.BATCH  # looking up members is slow
_YIELDED, _ENDED, _LOST = AnswerKind.YIELDED, CallState.ENDED, CallState.LOST
_ABOUT_THE_CHILD = frozenset({AnswerKind.LOGGED, AnswerKind.LOADED})


class ProcessRunner(RemoteRunner["ChildCall"]):
    """Makes the calls of a slot in a child, which is started when there is one to make.

    Args:
        slot: The slot.
        events: Takes reports; has the clock.
        grace: Seconds between asking a call to end, SIGTERM and SIGKILL.
        most: Calls that one child may make; `None` for no bound.
    """

    _Call, _PLAIN_STYLE, _STREAM_STYLE = ProcessCall, CallStyle.PLAIN, CallStyle.STREAM
    _queue: ChildQueue

    def __init__(self, slot: SlotInfo, events: RunnerEvents, grace: float, most: int | None) -> None:
        super().__init__(slot.device, events, grace)
        self._slot = slot
        self._most = most
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: ChildProcess | None = None
        self._models = ModelNumbers()
        self._encoder = CallEncoder(self._models, events.time)
        self._queue = ChildQueue(self._encoder, most)
        self._is_recalled = False

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Have the child make one call for all of them; see `JobRunner.run_batch`.

        Raises:
            PicklingError: The call, or its result or exception, can't be sent.
            NotSent: The same, for several jobs.
            NeverStarted: The system can't start a child now.
            WorkerDied: The child ended during the call.
        """
        return self._make(ProcessCall(jobs, jobs[0].fn, ([job.payload[0] for job in jobs],), _BATCH))

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

    def _tell(self, call: ChildCall, *, is_cancelled: bool) -> None:
        call.notify(Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end(self, call: ChildCall, moment: float) -> None:
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
            self._send(call, child)
        call.begin(time.monotonic(), child.is_ready)
        value = self._outcome(call, child, was_prefetched)
        if call.function is not None:
            child.known.add(call.function)
        return value

    def _send(self, call: ChildCall, child: ChildProcess) -> None:
        try:
            message = self._encoder.encode(call, child)
            call.is_typical = not message.introduces
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
                if call.style <= _BATCH:
                    child.sleep_until_exit(self._queue.rest)
                child.wait(self._patience(call, now))
                now = time.monotonic()
                if now >= call.next_check():
                    call.hurry(child)
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
                self._put_value(call, child, answer)
            else:
                self._note(call, child, answer, is_its_own=True)

    def _fill_or_return(self, call: ChildCall, child: ChildProcess, now: float) -> None:
        """Before a wait: prefetch more calls, or give back those that were recalled."""
        queue, source = self._queue, self._queue.source
        if not queue and (source is None or source.is_short):
            self._is_recalled = False
            return
        # A call that takes longer than those before it: give back those behind it.
        if self._is_recalled or now >= call.began + queue.depth.patience:
            self._is_recalled = False
            if queue:
                queue.return_all(child.take_back(call))
        else:
            queue.fill(child)

    def _patience(self, call: ChildCall, now: float) -> float | None:
        """Seconds to wait for an answer; `None` for no limit."""
        moment = call.next_check()
        if self._queue:
            moment = min(moment, call.began + self._queue.depth.patience)
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
            return content if call.style != _BATCH else joined(content, job.name, self._device.label)
        (error, fault), model = error_of(content, self._device.label), job.options.model
        if fault is not None and fault.kind == "sticky":
            # The child can't use its device any more, and may hang if it unloads a model.
            child.signal(signal.SIGKILL)
            self._reap(None)
        if answer.kind == AnswerKind.NOT_LOADED and model is not None:
            self._events.not_loaded(model, self._slot, error)
            raise LoadFailed(model, bearable(model, error))
        if answer.kind == AnswerKind.NOT_READ and len(call.jobs) > 1:
            raise NotSent from error
        raise error

    def _put_value(self, call: ChildCall, child: ChildProcess, answer: Answer) -> None:
        """Put a value of a stream into its channel; after an exception the child ends the stream."""
        stream: Any = call.jobs[0].fn
        if call.refusal is None and isinstance(stream, StreamCall):
            try:
                stream.channel.put(child.content(answer))
            except BaseException as refusal:  # noqa: BLE001 - raised in `_finish`
                call.refusal = refusal
                call.notify(Notice.CANCELLED)
        else:
            child.drop(answer)
        child.grant(call, answer)

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
                    self._note_loaded(child, *content)
                elif kind == AnswerKind.REPORTED:
                    self._events.progressed(call.jobs, content)
            except BaseException as error:  # noqa: BLE001 - raised by its class
                log_error(logger, error, "an answer from the process of %s can't be read", self._device.label)

    def _note_loaded(self, child: ChildProcess, number: int, seconds: float) -> None:
        child.loaded.add(number)
        model = self._models.by_number(number)
        self._events.loaded(model, self._slot, seconds)

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
                self._child = ChildProcess(self._device, self._wakeup)
            except OSError as error:
                raise NeverStarted(self._device, f"its process can't be started: {error}") from error
        return self._child

    def _dismiss(self, child: ChildProcess) -> None:
        termination = Termination(self._grace)
        termination.begin(time.monotonic() + _UNLOADING)
        nothing: ChildCall = ProcessCall([], None, ())
        try:
            self._queue.return_all(child.take_back())
            child.dismiss()
            while True:
                if (received := child.receive()) is not None:
                    self._note(nothing, child, received[0], is_its_own=False)
                    continue
                child.wait(termination.patience(time.monotonic()))
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
        for number in child.loaded:
            model = self._models.by_number(number)
            self._events.unloaded(model, self._slot)
        if child.reap() is None:
            logger.warning("process %d of %s does not exit and is abandoned", child.process, self._device.label)
