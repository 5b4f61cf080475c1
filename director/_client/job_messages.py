"""What the server says of this application's jobs. On the event loop only."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from director._ipc.exceptions import error_of
from director._ipc.server.body import loaded
from director._ipc.server.peer import Kind
from director._jobs.calls import LocalCall, StreamCall
from director._jobs.state import JobState
from director._runtime.retries import Retry
from director._untrusted.objects import bearable
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._client.link import Link
    from director._client.queue import ServerQueue
    from director._ipc.server.peer import Message
    from director._jobs.job import ScheduledJob
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.job_lifecycle import JobLifecycle

_RUNNING, _QUEUED = JobState.RUNNING, JobState.QUEUED


class JobMessages:
    """Moves jobs along as the server tells of them.

    Outcomes are entries of the channel to the event loop, which the caller delivers when it has taken all messages.

    Args:
        queue: The jobs that wait and run in the server.
        lifecycle: Ends jobs.
        instrumentation: Takes events.
        time: The clock.
    """

    def __init__(
        self,
        queue: ServerQueue,
        lifecycle: JobLifecycle,
        instrumentation: Instrumentation,
        time: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._lifecycle = lifecycle
        self._channel = lifecycle.loop_channel
        self._instrumentation = instrumentation
        self._time = time
        self._readers: dict[int, Callable[[Link, Message], None]] = {
            Kind.STARTED: self._started,
            Kind.RETURNED: self._returned,
            Kind.RAISED: self._raised,
            Kind.CANCELLED: self._cancelled,
            Kind.YIELDED: self._yielded,
            Kind.PROGRESSED: self._progressed,
            Kind.RETRIED: self._retried,
        }

    def take(self, link: Link, message: Message) -> bool:
        """Take a message; False if it is not about a job.

        Raises:
            BaseException: What unpickling a value has raised, of a message that ends no job.
        """
        read = self._readers.get(message.kind)
        if read is None:
            return False
        read(link, message)
        return True

    def _started(self, link: Link, message: Message) -> None:
        if (job := link.calls.get(message.number)) is not None:
            self._begin(link, job, message)

    def _begin(self, link: Link, job: ScheduledJob[Any], message: Message) -> None:
        slot = self._queue.slots[message.slot]
        if not self._queue.begin(job, slot, message.began):
            return
        if job.options.timeout is not None:
            self._lifecycle.timers.start(job)
        if self._instrumentation.listening:
            self._instrumentation.started(job, slot, message.began, 1)
        if isinstance(job.fn, LocalCall):
            job.fn.begin(slot.device, partial(self._channel.on_loop, link.peer.send, Kind.RELEASE, job.id))

    def _returned(self, link: Link, message: Message) -> None:
        job = link.calls.pop(message.number, None)
        if job is None:
            return
        if job.state is _QUEUED:
            self._begin(link, job, message)
        if job.state is not _RUNNING:  # it has ended for its caller
            self._channel.entries.append(job)
            return
        try:
            value = value_of(message)
            if isinstance(job.fn, LocalCall):
                value = job.fn.settle(lambda: value)
        except BaseException as error:  # noqa: BLE001 - raised by its class
            self._channel.entries.append((self._fail, (job, error, message.ended)))
            return
        job.payload, job.finished_at = value, message.ended
        self._channel.entries.append(job)

    def _raised(self, link: Link, message: Message) -> None:
        job = link.calls.pop(message.number, None)
        if job is None:
            return
        device = self._queue.slots[message.slot].device.label if message.slot >= 0 else "the server"
        error, _ = error_of(value_of(message), device)
        # A lease that has begun was told so before: this one's model could not be loaded.
        is_lease = isinstance(job.fn, LocalCall) and job.fn.given() is None
        if job.state is _QUEUED and message.slot >= 0 and not is_lease:
            self._begin(link, job, message)
        if isinstance(job.fn, LocalCall):
            with suppress(BaseException):
                job.fn.settle(partial(_raise, error))
        if job.state is _RUNNING:
            self._channel.entries.append((self._fail, (job, error, message.ended)))
        elif self._queue.fail(job):
            end = self._lifecycle.end_closed if isinstance(error, DirectorClosed) else self._lifecycle.end_failed
            self._channel.entries.append((end, (job, bearable(error))))
        else:
            self._channel.entries.append(job)

    def _fail(self, job: ScheduledJob[Any], error: BaseException, ended: float) -> None:
        if job.state is _RUNNING:
            job.finished_at = ended
        self._lifecycle.handle_error(job, error)

    def _cancelled(self, link: Link, message: Message) -> None:
        job = link.calls.pop(message.number, None)
        if job is None:
            return
        if job.state is _RUNNING:
            job.finished_at = message.ended or self._time()
        if job.done():
            self._channel.entries.append(job)
        elif job.state is _RUNNING:
            self._channel.entries.append((self._lifecycle.handle_error, (job, asyncio.CancelledError())))
        else:
            self._channel.entries.append((self._lifecycle.end_cancelled, (job, None)))

    def _running(self, link: Link, message: Message) -> ScheduledJob[Any] | None:
        """The job of a message that its call has sent; `None` if it has ended here."""
        job = link.calls.get(message.number)
        if job is not None and job.state is _QUEUED and message.slot >= 0:
            self._begin(link, job, message)
        return job if job is not None and job.state is _RUNNING else None

    def _yielded(self, link: Link, message: Message) -> None:
        job = self._running(link, message)
        if job is None or not isinstance(job.fn, StreamCall):
            return
        channel = job.fn.channel
        channel.on_take = partial(self._taken, link, message.number)
        channel.on_cut = partial(self._cut, link, job)
        try:
            channel.put(value_of(message))
        except BaseException as error:  # noqa: BLE001 - it was closed, or the value's class has raised
            self._cut(link, job, error)

    def _cut(self, link: Link, job: ScheduledJob[Any], error: BaseException) -> None:
        """A stream ends before its generator."""
        self._fail(job, error, self._time())
        link.cancel(job)

    def _taken(self, link: Link, number: int) -> None:
        if link.peer.is_open:
            link.peer.send(Kind.TAKEN, number, 1)

    def _retried(self, link: Link, message: Message) -> None:
        job, is_counted = link.calls.get(message.number), bool(message.head)
        if job is None:
            return
        if job.state is _QUEUED and is_counted:
            self._begin(link, job, message)
        slot = self._queue.slots[message.slot]
        error, _ = error_of(value_of(message), slot.device.label)
        if job.state is _RUNNING:
            job.finished_at = message.ended or None
            if self._lifecycle.retries.hold(job, Retry(slot, 0.0, job.options, is_counted), error):
                self._queue.note_retry(job)

    def _progressed(self, link: Link, message: Message) -> None:
        if (job := self._running(link, message)) is not None:
            job.reported = value_of(message)
            self._instrumentation.progressed(job, job.reported)


def value_of(message: Message) -> Any:
    """The value in a message."""
    assert message.content is not None
    return loaded(message.content)


def _raise(error: BaseException) -> NoReturn:
    raise error
