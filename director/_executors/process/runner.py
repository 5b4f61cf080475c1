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
_TRIES = 3  # children that may end before they have received a call; it has not begun then, and is safe to send again
_UNLOADING = 8.0  # seconds that a dismissed child gets before it is told to end; the runtime waits two longer
_RETURNED, _STREAM, _BATCH = (
    AnswerKind.RETURNED,
    CallStyle.STREAM,
    CallStyle.BATCH,
)  # an enum's member takes a search each time
_YIELDED, _ENDED, _LOST = AnswerKind.YIELDED, CallState.ENDED, CallState.LOST
_ABOUT_THE_CHILD = frozenset({AnswerKind.LOGGED, AnswerKind.LOADED})


class ProcessRunner(RemoteRunner["ChildCall"]):
    """Makes the calls of a slot in a child, which is started when there is one to make.

    Args:
        slot: Whose calls.
        events: Is told what the child has loaded, and tells the time.
        grace: Seconds between asking a call to end, SIGTERM and SIGKILL.
        most: Calls that one child may make; `None` for no bound.
    """

    _Call, _BARELY, _AS_STREAM = ProcessCall, CallStyle.PLAIN, CallStyle.STREAM
    _queue: ChildQueue

    def __init__(self, slot: SlotInfo, events: RunnerEvents, grace: float, most: int | None) -> None:
        super().__init__(slot.device, events, grace)
        self._slot = slot
        self._most = most
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: ChildProcess | None = None
        self._models = ModelNumbers()
        self._encoder = CallEncoder(self._models, events.time)
        self._queue = ChildQueue(self._encoder, most)
        self._is_recalled = False

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Have the child make one call for all of them; see `JobRunner.run_batch`.

        Raises:
            PicklingError: The call, or its result or exception, can't be sent.
            NotSent: The same, of several jobs.
            NeverStarted: The system can't start a child now.
            WorkerDied: The child ended in the midst of the call.
        """
        return self._make(ProcessCall(jobs, jobs[0].fn, ([job.payload[0] for job in jobs],), _BATCH))

    def close(self) -> None:
        """Let the child unload its models and end."""
        if self._child is not None:
            self._dismiss(self._child)

    def recall_prefetched(self) -> None:
        """From any thread: give back what the child has not begun."""
        self._is_recalled = True
        os.eventfd_write(self._bell, 1)

    def __del__(self) -> None:
        # Not in `close`: the event loop may be about to write to it.
        if hasattr(self, "_bell"):
            os.close(self._bell)

    # ---- one call

    def _tell(self, call: ChildCall, *, is_cancelled: bool) -> None:
        call.notify(Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end(self, call: ChildCall, moment: float) -> None:
        call.end(moment, self._grace)
        os.eventfd_write(self._bell, 1)

    def _run(self, job: ScheduledJob[Any]) -> Any:
        call = self._queue.find(job)
        return super()._run(job) if call is None else self._make(call)

    def _make(self, call: ChildCall) -> Any:
        self._call = call
        self._queue.start(call)
        try:
            for _ in range(_TRIES):
                if call.state is _LOST:  # maybe since before its turn
                    break
                try:
                    return self._run_call(call)
                except (ChildGone, Unkillable, WireBroken) as error:
                    self._bury(error)
            raise WorkerDied(None if call.child is None else call.child.exitcode, self._device)
        finally:
            self._call = None

    def _run_call(self, call: ChildCall) -> Any:
        """Send a call, if it was not sent ahead, and wait for its end."""
        if call.answer is not None and call.child is not None:  # it came before its turn
            return self._finish(call, call.child, call.answer)
        child = None if call.state is CallState.QUEUED else call.child
        was_ahead = child is not None
        if child is None:
            child = self._present_child()
            if call.is_unwanted:  # since before we could be told
                call.move(_ENDED)
                raise asyncio.CancelledError
            self._send(call, child)
        call.begin(time.monotonic(), child.is_ready)
        value = self._outcome(call, child, was_ahead)
        if call.function is not None:
            child.known.add(call.function)
        return value

    def _send(self, call: ChildCall, child: ChildProcess) -> None:
        try:
            message = self._encoder.encode(call, child)
            call.is_typical = not message.introduces
            try:
                child.send(call, message)
            except BlockingIOError:  # the socket is full of calls that are over: the child need not see them
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
        """Wait for the end of the call, and take note of what comes before it; meanwhile keep the child in work.

        Args:
            call: Whose turn it is.
            child: Makes it.
            look: Whether there may be an answer already.
        """
        now, is_one_of_many = call.began, look or call.style == _STREAM
        while True:
            received = child.receive(is_one_of_many) if look else None
            look = True
            if received is None:
                self._mind_stock(call, child, now)
                if call.style <= _BATCH:
                    child.sleep_until_exit(self._queue.rest)
                child.wait(self._patience(call, now))
                now = time.monotonic()
                if now >= call.next_look():
                    call.hurry(child)
                continue
            answer, whose = received
            if whose is not call:
                if whose is not None and whose.state is _ENDED and self._queue.find(whose.jobs[0]) is whose:
                    whose.answer = answer  # the child has received it before this one was sent again
                else:
                    self._note(call, child, answer, is_its_own=False)
            elif call.state is _ENDED:
                return self._finish(call, child, answer)
            elif answer.kind == _YIELDED:
                self._hand_over(call, child, answer)
            else:
                self._note(call, child, answer, is_its_own=True)

    def _mind_stock(self, call: ChildCall, child: ChildProcess, now: float) -> None:
        """Before a wait: have the child have enough ahead, or give back what others are free for."""
        queue, source = self._queue, self._queue.source
        if not queue and (source is None or source.is_short):
            self._is_recalled = False
            return
        # One that lasts longer than those before it: what is behind it is better off elsewhere.
        if self._is_recalled or now >= call.began + queue.pace.patience:
            self._is_recalled = False
            if queue:
                queue.return_all(child.take_back(call))
        else:
            queue.fill(child)

    def _patience(self, call: ChildCall, now: float) -> float | None:
        """Seconds to wait for an answer; `None` for ever."""
        moment = call.next_look()
        if self._queue:
            moment = min(moment, call.began + self._queue.pace.patience)
        return None if moment == math.inf else max(0.0, moment - now)

    def _finish(self, call: ChildCall, child: ChildProcess, answer: Answer) -> Any:
        """The call has ended."""
        if call.is_typical:
            self._queue.pace.note(answer.began, answer.ended, child.read_at)
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
            # It can't use its device any more, and may hang when it is asked to unload something.
            child.signal(signal.SIGKILL)
            self._bury(None)
        if answer.kind == AnswerKind.NOT_LOADED and model is not None:
            self._events.not_loaded(model, self._slot, error)
            raise LoadFailed(model, bearable(model, error))
        if answer.kind == AnswerKind.NOT_READ and len(call.jobs) > 1:
            raise NotSent from error
        raise error

    def _hand_over(self, call: ChildCall, child: ChildProcess, answer: Answer) -> None:
        """Give a value of a stream to its reader, who may have left or be too slow: the child then ends the stream."""
        stream: Any = call.jobs[0].fn
        if call.refusal is None and isinstance(stream, StreamCall):
            try:
                stream.channel.put(child.content(answer))
            except BaseException as refusal:  # noqa: BLE001 - raised when the stream has ended
                call.refusal = refusal
                call.notify(Notice.CANCELLED)
        else:
            child.drop(answer)
        child.grant(call, answer)

    def _note(self, call: ChildCall, child: ChildProcess, answer: Answer, *, is_its_own: bool) -> None:
        """Take in what a child says beside its outcomes; it must not harm the call that runs."""
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
            except BaseException as error:  # noqa: BLE001 - whatever its class raises
                log_error(logger, error, "what the process of %s says can't be understood", self._device.label)

    def _note_loaded(self, child: ChildProcess, number: int, seconds: float) -> None:
        child.loaded.add(number)
        model = self._models.by_number(number)
        self._events.loaded(model, self._slot, seconds)

    # ---- the child

    def _present_child(self) -> ChildProcess:
        """The child, started if need be.

        Raises:
            NeverStarted: The system can't start one now.
        """
        child, most = self._child, self._most
        if child is not None and most is not None and child.count >= most:
            self._dismiss(child)
        if self._child is None:
            try:
                self._child = ChildProcess(self._device, self._bell)
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
            self._bury(error)

    def _bury(self, error: Exception | None) -> None:
        """The child is gone, and everything that it had loaded; what it had not begun goes back."""
        child, self._child = self._child, None
        assert child is not None
        if isinstance(error, (OSError, WireBroken)):
            logger.error("the process of %s is ended, for it can't be trusted: %s", self._device.label, error)
            child.signal(signal.SIGKILL)
        self._queue.return_all(child.lose())
        for number in child.loaded:
            model = self._models.by_number(number)
            self._events.unloaded(model, self._slot)
        if child.reap() is None:
            logger.warning("process %d of %s does not end: it is left behind", child.process, self._device.label)
