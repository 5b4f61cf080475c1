"""The driver's side of one slot: its thread sends each call to the slot's actor and waits for the answer.

Everything here is the slot's own thread's, but for `leave`, `abort` and `recall`, which other threads call.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from typing import TYPE_CHECKING, Any

from director._executors.base import LoadFailed, NeverStarted, NotSent
from director._executors.ray.actor_client import ActorClient, ActorLost
from director._executors.ray.actor_queue import ActorQueue, Offset
from director._executors.ray.messages import AnswerKind, NoteKind
from director._executors.ray.payload import unpack, unsendable
from director._executors.ray.pending_call import RayCall
from director._executors.remote.batch_items import joined
from director._executors.remote.runner import CallState, RemoteRunner
from director._executors.replicas import bearable
from director._ipc import log_relay as logs
from director._ipc.exceptions import error_of
from director._ipc.protocol import CallStyle, Notice
from director._jobs.calls import StreamCall
from director._untrusted.objects import log_error
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._executors.ray.allocation import Reservation
    from director._executors.ray.messages import Answer, Note
    from director._executors.ray.terms import RayTerms
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import SlotInfo
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")
_FAILURES = frozenset({AnswerKind.RAISED, AnswerKind.NOT_LOADED, AnswerKind.NOT_READ})
_TRIES = 3  # actors that may end before they have begun a call: it is safe to send again then


class RayRunner(RemoteRunner[RayCall]):
    """Makes the calls of a slot in an actor.

    Args:
        slot: Whose calls.
        events: Is told what the actor has loaded, and tells the time.
        terms: Of all actors.
        claim: What is held for the device.
    """

    _Call, _PLAIN_STYLE, _STREAM_STYLE = RayCall, CallStyle.PLAIN, CallStyle.STREAM
    _queue: ActorQueue

    def __init__(self, slot: SlotInfo, events: RunnerEvents, terms: RayTerms, claim: Reservation) -> None:
        super().__init__(slot.device, events, terms.grace)
        self._slot = slot
        self.client = ActorClient(slot, events, terms, claim, self._log)
        self._queue = ActorQueue(self.client)
        self._offset = Offset()

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Have the actor make one call for all of them; see `JobRunner.run_batch`.

        Raises:
            PicklingError: The call, or its result or exception, can't be sent.
            NotSent: The same, of several jobs; their function was not called.
            NeverStarted: The device was lost before the call had begun.
            WorkerDied: The actor was lost during the call.
        """
        return self._make(RayCall(jobs, jobs[0].fn, tuple(job.payload[0] for job in jobs), CallStyle.BATCH))

    def close(self) -> None:
        """Let the actor unload its models, and end it."""
        self.client.dismiss()

    def recall_prefetched(self) -> None:
        """From any thread: give back what the actor has not begun."""
        self._queue.recall()

    # ---- one call

    def _tell(self, call: RayCall, *, is_cancelled: bool) -> None:
        self.client.request(call, Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end(self, call: RayCall, moment: float) -> None:
        call.end(moment)

    def _make(self, call: RayCall) -> Any:
        call = self._call = self._queue.turn_of(call.jobs[0]) or call
        try:
            for tries_left in reversed(range(_TRIES)):
                try:
                    if call.state is CallState.LOST:  # before its turn
                        break
                    return self._result(call, self._outcome(call))
                except ActorLost:
                    call.life = self.client.recover(call.ends_at)
                    self._queue.return_all()
                    if call.state is not CallState.QUEUED or not tries_left:
                        break
            died = WorkerDied(None, self._device)
            if call.life is not None:
                died._life = call.life
            raise died
        finally:
            self._call = None

    def _outcome(self, call: RayCall) -> Answer:
        """Send a call, if it was not sent ahead, and wait for its end; meanwhile keep the actor in work."""
        client, queue = self.client, self._queue
        if call.state is not CallState.QUEUED and call.is_unwanted:  # before we could be told
            client.request(call, Notice.CANCELLED)
        began = time.monotonic()
        while (answer := call.answer) is None:
            if call.state is CallState.QUEUED:
                self._send(call)
            if call.style is not CallStyle.STREAM:
                queue.keep(began)
            client.wait(min(call.ends_at, queue.overdue_at(began)))
            self._note_news(call)
            self._hand_over(call)
            if call.answer is None:
                client.check(call)
        return answer

    def _send(self, call: RayCall) -> None:
        if call.is_unwanted:
            raise asyncio.CancelledError
        if self.client.claim.is_lost:
            raise NeverStarted(self._device)
        try:
            self.client.send(call)
        except pickle.PicklingError as error:
            if len(call.jobs) > 1:
                raise NotSent from error
            raise
        if call.is_unwanted:
            self.client.request(call, Notice.CANCELLED)

    def _hand_over(self, call: RayCall) -> None:
        """Give values of a stream to its reader, which may have left or be too slow: the actor then ends the stream."""
        stream: Any = call.jobs[0].fn
        while (payload := call.values.pop(call.taken, None)) is not None:
            call.taken += 1
            if call.refusal is None and type(stream) is StreamCall:
                try:
                    stream.channel.put(unpack(payload))
                except BaseException as refusal:  # noqa: BLE001 - raised when the stream has ended
                    call.refusal = refusal
                    self.client.request(call, Notice.CANCELLED)

    def _result(self, call: RayCall, answer: Answer) -> Any:
        self.client.learn(call, answer)
        self._note_news(call)
        if answer.began:
            ended = self._offset.here(answer.began, answer.ended, call.sent_at, call.read_at)
            if self._is_timely:
                self._ended = max(call.jobs[0].started_at or 0.0, min(ended, call.read_at))
            if call.style is CallStyle.WITH_RESOURCE and answer.kind == AnswerKind.RETURNED and not answer.loaded:
                self._queue.note(answer.ended - answer.began)
        if call.refusal is not None:
            raise call.refusal
        job = call.jobs[0]
        try:
            assert answer.payload is not None
            content = unpack(answer.payload)
            if answer.kind in _FAILURES:
                content, fault = error_of(content, self._device.label)
        except BaseException as error:
            what = "result" if answer.kind == AnswerKind.RETURNED else "exception"
            raise pickle.PicklingError(str(unsendable(f"the {what} of {job.name}", error))) from error
        if answer.kind == AnswerKind.RETURNED:
            is_batch = call.style is CallStyle.BATCH
            return joined(content, job.name, self._device.label, unpack) if is_batch else content
        if answer.kind == AnswerKind.UNSENDABLE:
            raise unsendable(f"the result of {job.name}", content)
        if fault is not None and fault.kind == "sticky":  # it begins nothing more
            self.client.replace()
            self._queue.return_all()
        if answer.kind == AnswerKind.NOT_LOADED and (model := job.options.model) is not None:
            self._events.not_loaded(model, self._slot, content)
            raise LoadFailed(model, bearable(model, content))
        if answer.kind == AnswerKind.NOT_READ and len(call.jobs) > 1:
            raise NotSent from content
        raise content

    # ---- what is told beside answers

    def _note_news(self, call: RayCall) -> None:
        progress, call.progress = call.progress, None
        if progress is not None:
            try:
                self._events.progressed(call.jobs, unpack(progress))
            except BaseException as error:  # noqa: BLE001 - whatever its class raises; the call goes on
                log_error(logger, error, "the progress of a job on %s can't be unpickled", self._device.label)

    def _log(self, note: Note) -> None:
        try:
            content = pickle.loads(note.payload[0])  # noqa: S301 - plain values, of our actor
            if note.kind == NoteKind.LOGGED:
                logs.relay(content, self._device.label)
            else:
                logger.warning("%s: %d notes were dropped, there were too many", self._device.label, content)
        except Exception as error:  # noqa: BLE001 - of the user's handlers
            log_error(logger, error, "a log record of %s can't be handled", self._device.label)
