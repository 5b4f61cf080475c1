"""The runner of a slot with an actor: the slot's thread sends each call to the actor and waits for the answer.

For the slot's thread; `abandon` and `abort` for the event loop, `recall_prefetched` for any thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import pickle
import time
from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted, NotSent
from director._executors.ray.actor_client import ActorClient, ActorLost
from director._executors.ray.messages import AnswerKind, SideMessageKind
from director._executors.ray.payload import unpack, unsendable
from director._executors.ray.pending_call import RayCall
from director._executors.ray.prefetch_queue import ActorPrefetchQueue
from director._executors.remote.batch_items import unpack_items
from director._executors.remote.calls import CallState
from director._executors.remote.runner import RemoteRunner
from director._ipc import log_relay as logs
from director._ipc.exceptions import error_of
from director._ipc.protocol import CallStyle, Notice
from director._untrusted.objects import log_error
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._executors.base import MemoryEvents
    from director._executors.ray.cluster.reservation import Reservation
    from director._executors.ray.messages import Answer, SideMessage
    from director._executors.ray.options import RayOptions
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import SlotInfo

logger = logging.getLogger("director")
_FAILURES = frozenset({AnswerKind.RAISED, AnswerKind.NOT_LOADED, AnswerKind.NOT_READ})
_TRIES = 3  # actors that may be lost before they have begun a call, which is then sent again


class RayRunner(RemoteRunner[RayCall]):
    """Makes the calls of a slot in an actor."""

    _Call = RayCall
    _queue: ActorPrefetchQueue

    def __init__(self, slot: SlotInfo, events: MemoryEvents, options: RayOptions, reservation: Reservation) -> None:
        super().__init__(slot, events, options.grace)
        self.client = ActorClient(slot, self._models, events.time, options, reservation, self._log)
        self._queue = ActorPrefetchQueue(self.client)
        self._offset = ClockOffset()

    def _batch_args(self, items: list[Any]) -> tuple[Any, ...]:
        return tuple(items)  # so that the encoder finds Ray's references among them

    def _is_prepared(self, job: ScheduledJob[Any]) -> bool:
        return self.client.has(job.options.model)

    def close(self) -> None:
        """Have the actor unload its models, and end it."""
        self.client.dismiss()

    def recall_prefetched(self) -> None:
        """From any thread: give back what the actor has not begun."""
        self._queue.recall()

    # ---- one call

    def _has_process(self) -> bool:
        return self.client.has(None)

    def _notify(self, call: RayCall, *, is_cancelled: bool) -> None:
        self.client.request(call, Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)

    def _end_at(self, call: RayCall, moment: float) -> None:
        call.end(moment)

    def _make(self, call: RayCall) -> Any:
        call = self._call = self._queue.start(call.jobs[0]) or call
        try:
            for tries_left in reversed(range(_TRIES)):
                try:
                    if call.state is CallState.LOST:  # while it was prefetched
                        break
                    return self._result(call, self._outcome(call))
                except ActorLost:
                    call.lost_with = self.client.recover(call.ends_at)
                    self._queue.return_all()
                    if call.state is not CallState.QUEUED or not tries_left:
                        break
            died = WorkerDied(None, self._device)
            if call.lost_with is not None:
                died._life = call.lost_with
            raise died
        finally:
            self._call = None

    def _outcome(self, call: RayCall) -> Answer:
        """Send a call, unless it was prefetched, and wait for its end; prefetch calls meanwhile."""
        client, queue = self.client, self._queue
        if call.state is not CallState.QUEUED and call.is_unwanted:  # since before it could be notified
            client.request(call, Notice.CANCELLED)
        began = time.monotonic()
        while (answer := call.answer) is None:
            if call.state is CallState.QUEUED:
                self._send(call)
            if call.style is not CallStyle.STREAM and not self._is_preparing:
                queue.fill_or_return(began)
            client.wait(min(call.ends_at, queue.overdue_at(began)))
            self._report_progress(call)
            self._put_values(call)
            if call.answer is None:
                client.check(call)
        return answer

    def _send(self, call: RayCall) -> None:
        if call.is_unwanted:
            raise asyncio.CancelledError
        if self.client.reservation.is_lost:
            raise NeverStarted(self._device)
        try:
            self.client.send(call)
        except pickle.PicklingError as error:
            if len(call.jobs) > 1:
                raise NotSent from error
            raise
        if call.is_unwanted:
            self.client.request(call, Notice.CANCELLED)

    def _put_values(self, call: RayCall) -> None:
        """Put the next values of a stream, which may arrive out of order, into its channel."""
        while (payload := call.values.pop(call.taken, None)) is not None:
            call.taken += 1
            self._put_value(call, unpack, payload)

    def _result(self, call: RayCall, answer: Answer) -> Any:
        self.client.note_answer(call, answer)
        self._report_progress(call)
        if answer.began:
            ended = self._offset.to_local(answer.began, answer.ended, call.sent_at, call.read_at)
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
                content = error_of(content, self._device.label)
        except BaseException as error:
            what = "result" if answer.kind == AnswerKind.RETURNED else "exception"
            raise pickle.PicklingError(str(unsendable(f"the {what} of {job.name}", error))) from error
        if answer.kind == AnswerKind.RETURNED:
            is_batch = call.style is CallStyle.BATCH
            return unpack_items(content, job.name, self._device.label, unpack) if is_batch else content
        if answer.kind == AnswerKind.UNSENDABLE:
            raise unsendable(f"the result of {job.name}", content)
        is_loaded, is_read = answer.kind != AnswerKind.NOT_LOADED, answer.kind != AnswerKind.NOT_READ
        raise self._failure(call, content, is_loaded=is_loaded, is_read=is_read)

    def _replace(self) -> None:
        self.client.replace()
        self._queue.return_all()

    # ---- side messages

    def _report_progress(self, call: RayCall) -> None:
        progress, call.progress = call.progress, None
        if progress is not None:
            try:
                self._events.progressed(call.jobs, unpack(progress))
            except BaseException as error:  # noqa: BLE001 - raised by its class; the call goes on
                log_error(logger, error, "the progress of a job on %s can't be unpickled", self._device.label)

    def _log(self, message: SideMessage) -> None:
        try:
            content = pickle.loads(message.payload[0])  # noqa: S301 - plain values, from our actor
            if message.kind == SideMessageKind.LOGGED:
                logs.relay(content, self._device.label)
            else:
                logger.warning(
                    "%s: %d log records and reports were dropped, because more than 10,000 had not been read",
                    self._device.label,
                    content,
                )
        except Exception as error:  # noqa: BLE001 - raised by the user's handlers
            log_error(logger, error, "a log record of %s can't be handled", self._device.label)


_DRIFT = 1e-4  # seconds in a second, at most, by which two clocks may drift apart


class ClockOffset:
    """Bounds of the difference of two clocks, by which `to_local` estimates it."""

    __slots__ = ("_at", "_least", "_most")

    def __init__(self) -> None:
        self._least, self._most = -math.inf, math.inf
        self._at = 0.0

    def to_local(self, began: float, ended: float, sent: float, read: float) -> float:
        """When a call has ended, by the local clock.

        Args:
            began: When it began, by the other clock.
            ended: When it has ended, by the other clock.
            sent: When it was sent, by the local clock: before `began`.
            read: When its answer was received, by the local clock: after `ended`.
        """
        slack = _DRIFT * max(0.0, read - self._at)
        self._at = read
        least, most = max(self._least - slack, sent - began), min(self._most + slack, read - ended)
        if least > most:  # a clock was set, or the actor is on another machine
            least, most = sent - began, read - ended
        self._least, self._most = least, most
        return ended + (least + most) / 2
