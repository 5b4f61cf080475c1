"""The queue of jobs that wait and run in the server, as the lifecycle of jobs knows it.

`links` and the calls of each are written under `_lock`, which is reentrant because a finalizer may submit a job. No
code of the user's is called under it: what pickles an argument may block, or wait for the event loop.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from director._executors.base import is_loss
from director._jobs.state import JobState
from director._runtime.retries import RetryPolicy
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._client.encoding import Encoder, PackedJob
    from director._client.link import Link
    from director._client.room import Room
    from director._jobs.job import Location, ScheduledJob
    from director._jobs.model import Model
    from director._runtime.retries import Retry
    from director._scheduler.placement import Jobs
    from director._scheduler.slots import DeviceSlots, Slot
    from director.errors import QueueFull

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING


class ServerQueue:
    """The jobs of this application.

    Args:
        places: The server's devices with their slots.
        room: Counts the jobs that wait.
        encoder: Packs jobs.
        receive: Takes what has arrived from the server, for a submission that finds the queue full.
        not_sent: Called with a job that waits and can't be sent to a new server, and the error.
    """

    upper: ClassVar[Location | None] = None
    """As the `Location` of a job: not part of another queue."""
    is_deciding = False
    """Its methods have no step in which a finalizer could find it half changed."""

    def __init__(
        self,
        places: list[DeviceSlots],
        room: Room,
        encoder: Encoder,
        receive: Callable[[], None],
        not_sent: Callable[[ScheduledJob[Any], Exception], None],
    ) -> None:
        self.slots: list[Slot] = [slot for place in places for slot in place.slots]
        self._room = room
        self._encoder = encoder
        self._receive = receive
        self._not_sent = not_sent
        self._lock = threading.RLock()
        self._is_shut = False
        self.link: Link | None = None  # takes new jobs; `None` while there is no server
        self.old_links: list[Link] = []  # of servers that have another version of a module: they finish our jobs
        self.unsent: dict[ScheduledJob[Any], bool] = {}  # wait for a server; and whether they wait for room there

    @property
    def waiting(self) -> dict[int, ScheduledJob[Any]]:
        """The jobs that are QUEUED, wherever, by number."""
        return self._room.waiting

    # ---- `JobQueue`

    def admit(self, job: ScheduledJob[Any], wait_for_room: bool) -> None:
        """From any thread: send a job to the server.

        Raises:
            QueueFull: There is no room, and not `wait_for_room`.
            DirectorClosed: `stop_admission` was called.
            PicklingError: It can't be sent.
            ValueError: An option of it can't.
        """
        job.location = self
        if self._enter(job, wait_for_room) is not None:
            self._receive()  # jobs may have begun
            if (refusal := self._enter(job, wait_for_room)) is not None:
                with self._lock:
                    self._room.note_refusal()
                raise refusal
        # Who has reserved room here is not refused there, unless only some slots may run the job: which of them are
        # free, the server knows.
        waits = wait_for_room or job.options.allowed is None
        try:
            self._send(job, waits)
        except BaseException:
            with self._lock:
                self._room.leave(job)
            raise

    def _enter(self, job: ScheduledJob[Any], wait_for_room: bool) -> QueueFull | None:
        """Count a job, and whether it is refused; then it is not counted."""
        with self._lock:
            if self._is_shut:
                raise DirectorClosed("closed")
            self._room.enter(job)
            refusal = None if wait_for_room else self._room.refusal(job)
            if refusal is not None:
                self._room.leave(job)
            return refusal

    def admit_deferred(self, job: ScheduledJob[Any], wait_for_room: bool) -> None:
        """Never called: no submission is deferred."""

    def remove(self, job: ScheduledJob[Any], state: JobState) -> bool:
        """Move a waiting job to `state`, and tell the server; False if it doesn't wait any more."""
        with self._lock:
            if job.state is not _QUEUED or not self._room.leave(job):
                return False
            job.transition(state)
            self.unsent.pop(job, None)
            self.cancel(job)
            return True

    def remove_all(self, into: Jobs, state: JobState) -> None:
        """Add waiting jobs to `into`, by age; then set their `state`."""
        self._remove_all([job for _, job in sorted(self.waiting.items())], into, state)

    def remove_unsent(self, into: Jobs, state: JobState) -> None:
        """The same of those that no server has got, also while a thread pickles them."""
        with self._lock:
            sent = {job for link in self.links() for job in link.calls.values()}
            self._remove_all([job for _, job in sorted(self.waiting.items()) if job not in sent], into, state)

    def _remove_all(self, jobs: list[ScheduledJob[Any]], into: Jobs, state: JobState) -> None:
        into.extend(jobs)
        for job in jobs:
            self.remove(job, state)

    def hold_for_retry(self, job: ScheduledJob[Any]) -> bool:
        """Keep a job whose server was lost; False if it has ended, or admission has."""
        with self._lock:
            if self._is_shut or job.state is not _RUNNING:
                return False
            job.transition(_QUEUED)
            job.location = self
            self._room.enter(job)
            return True

    def note_retry(self, job: ScheduledJob[Any]) -> None:
        """The server has a job that was held for retry."""
        with self._lock:
            self._room.sent(job)
            self._room.note()

    def requeue(self, job: ScheduledJob[Any]) -> None:
        """Send a job held for retry. Does nothing if it has ended."""
        if job.state is _QUEUED:
            self._send_again(job, True)

    def running(self, *, and_waiting: bool = False) -> list[ScheduledJob[Any]]:
        """Jobs in slots, cancelled ones included; with `and_waiting` those that wait too."""
        with self._lock:
            running = [job for link in self.links() for job in link.begun()]
            return [*running, *(self.waiting.values() if and_waiting else ())]

    def is_idle(self) -> bool:
        """Whether nothing waits, and no call of ours runs in the server."""
        return not self.waiting and not any(link.calls for link in self.links())

    def is_drained(self) -> bool:
        """As `is_idle`, but for calls that run although their jobs have ended."""
        return not self.waiting and all(job.done() for link in self.links() for job in link.calls.values())

    # What a failed load means for a job is decided in the server: these three are never called.

    def can_load(self, job: ScheduledJob[Any]) -> bool:
        """False."""
        return False

    def is_coming(self, model: Model[Any]) -> bool:
        """False."""
        return False

    def fail_unloadable(self, into: Jobs, model: Model[Any], hopeless: ScheduledJob[Any] | None = None) -> None:
        """Nothing."""

    def open_slots(self) -> frozenset[int]:
        """Numbers of all slots: the server knows whose devices get work."""
        return frozenset(slot.number for slot in self.slots)

    def wake_again(self) -> None:
        """Nothing: a message that was written is sent."""

    # ----

    def links(self) -> list[Link]:
        """All servers that may have jobs of ours."""
        return [*self.old_links, *([] if self.link is None else [self.link])]

    def cancel(self, job: ScheduledJob[Any]) -> None:
        """A job is over for its caller: tell the server that has it."""
        for link in self.links():
            link.cancel(job)

    def left(self, job: ScheduledJob[Any]) -> None:
        """As the `Location` of a job: one has left."""
        with self._lock:
            self._room.leave(job)

    def refused(self) -> int:
        """How many jobs all applications have refused, before the server got them."""
        with self._lock:
            return self._room.refused()

    def note_counts(self) -> None:
        """Tell the other applications how many of our jobs wait and run: after calls have ended."""
        with self._lock:
            self._room.note()

    def stop_admission(self) -> None:
        """Admit nothing more."""
        self._is_shut = True

    def begin(self, job: ScheduledJob[Any], slot: Slot, began: float) -> bool:
        """The call of a job has begun in the server; False if the job has ended here."""
        with self._lock:
            if job.state is not _QUEUED or not self._room.leave(job):
                return False
            job.location = slot
            job.started_at = began
            job.state = _RUNNING
            return True

    def fail(self, job: ScheduledJob[Any]) -> bool:
        """A waiting job could not begin: make it FAILED; False if it does not wait."""
        with self._lock:
            if job.state is not _QUEUED or not self._room.leave(job):
                return False
            job.transition(JobState.FAILED)
            return True

    def connected(self, link: Link) -> None:
        """There is a server: send it what waits."""
        with self._lock:
            self.link = link
            self._room.move(link)
            unsent, self.unsent = self.unsent, {}
        for job, waits in unsent.items():
            self._send_again(job, waits)

    def disconnected(self) -> None:
        """The server is gone."""
        with self._lock:
            self.link = None
            self._room.move(None)

    def replaced(self) -> None:
        """The server finishes the jobs that it has, and gets no new ones."""
        with self._lock:
            if self.link is not None:
                self.old_links.append(self.link)
                self.link = None
                self._room.move(None)

    def _send(self, job: ScheduledJob[Any], waits: bool) -> None:
        """Send a job that waits, or keep it until there is a server."""
        packed: PackedJob | None = None
        while True:
            with self._lock:
                if job.id not in self.waiting:
                    return  # it has ended while it was packed
                if self.link is None:
                    self.unsent[job] = waits
                    return
                if packed is not None:
                    self.link.send(job, packed)
                    self._room.sent(job)
                    return
            packed = self._encoder.pack(job, waits)

    def _send_again(self, job: ScheduledJob[Any], waits: bool) -> None:
        """Send a job that was accepted before: what is wrong with it fails this job alone."""
        try:
            self._send(job, waits)
        except Exception as error:  # noqa: BLE001 - its arguments may be anything
            self._not_sent(job, error)


class ServerRetries(RetryPolicy):
    """Retries a job when the server was lost. The server itself retries what is lost or raised there.

    Each server that a job is lost with takes one of its retries, whether it is known to have begun there or not: it may
    be what ends the servers, before they can tell of its start.
    """

    def __init__(self, time: Callable[[], float], scheduler: ServerQueue) -> None:
        super().__init__(time, scheduler)
        self._waited: WeakKeyDictionary[ScheduledJob[Any], int] = WeakKeyDictionary()  # lost so often as they waited

    def plan(self, job: ScheduledJob[Any], error: BaseException) -> Retry | None:
        """When a job whose server was lost is retried; `None` if it is not."""
        if getattr(error, "_server", None) is not None and is_loss(error, job.location.device):  # type: ignore[union-attr]
            return super().plan(job, error) if self._losses(job) < job.options.retries else None
        return None

    def note_waiting(self, job: ScheduledJob[Any]) -> bool:
        """A job that waits, as far as is known here, was lost with its server. Returns whether it is sent again."""
        losses = self._losses(job)
        self._waited[job] = self._waited.get(job, 0) + 1
        return losses < job.options.retries

    def _losses(self, job: ScheduledJob[Any]) -> int:
        """How many of its retries are used."""
        return self._waited.get(job, 0) + (0 if job.extras is None else job.extras.failed_attempts)
