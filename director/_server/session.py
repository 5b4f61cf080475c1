"""One application process, as the server knows it: its jobs, streams and leases. On the event loop only."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from director._ipc.exceptions import RemoteError, pack_error
from director._ipc.frames import WireBroken
from director._ipc.server.body import Body, plain_content, reference_of
from director._ipc.server.calls import CallRaised, call_batch, stream
from director._ipc.server.job_head import FunctionHead, JobHead, JobParts, ModelHead, Style
from director._ipc.server.peer import Kind, Message, Peer
from director._jobs.calls import StreamCall, load_only
from director._jobs.job import JobExtras
from director._jobs.state import JobState
from director._scheduler.slots import Slot
from director._server.lease import ServedLease
from director._server.plans import Known, Plans
from director._server.stream_pump import StreamPump
from director.errors import DirectorClosed, DirectorError

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Coroutine

    from director._ipc.server.body import Content
    from director._jobs.job import Job, Owner, ScheduledJob
    from director._server.plans import Plan
    from director._system.clock import Clock

logger = logging.getLogger("director")


class Server(Known, Protocol):
    """What the sessions of all applications share; see `director._server.host.Host`."""

    @property
    def clock(self) -> Clock:
        """Its clock."""

    def welcome(self, session: Session, head: tuple[Any, ...], content: Content) -> None:
        """An application has told the arguments of its Director."""

    def add(self, job: ScheduledJob[Any], session: Session, number: int) -> None:
        """A job was queued."""

    def forget(self, job: Job[Any]) -> None:
        """A job is over."""

    def left(self, session: Session) -> None:
        """An application has gone."""

    def show(self, path: str) -> None:
        """Open a dashboard."""

    def end_waiting(self, jobs: set[ScheduledJob[Any]]) -> None:
        """Fail those of `jobs` that wait, with `DirectorClosed`."""

    def look_at_started(self) -> None:
        """Call `Session.started` with the jobs whose calls have begun."""


class SessionJobs:
    """The owner of one application's jobs: it may close while the server's Director does not.

    Args:
        director: The owner of all jobs.
    """

    def __init__(self, director: Owner) -> None:
        self._director = director
        self.closes = False

    @property
    def is_closing(self) -> bool:
        """Whether running calls are asked to end."""
        return self.closes or self._director.is_closing

    def cancel(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """Cancel a job; False if it had ended."""
        return self._director.cancel(job, msg)


class Session:
    """The jobs of one application.

    Args:
        host: The server.
        connection: The application's socket.
        loop: The event loop.
        pid: The application's process.
        row: Where it counts its jobs that wait, in the memory of all applications.
    """

    def __init__(
        self, host: Server, connection: socket.socket, loop: asyncio.AbstractEventLoop, pid: int, row: int
    ) -> None:
        self.pid = pid
        self.row = row
        self.is_welcome = False  # it has the devices
        self.is_draining = False
        self._is_closing = False  # its Director: it submits nothing more
        self._server = host
        self._loop = loop
        self._plans = Plans(host)
        self._jobs: dict[int, ScheduledJob[Any]] = {}
        self._streams: dict[int, StreamPump] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._leases: dict[int, ServedLease] = {}
        self._owner: SessionJobs | None = None
        self.peer = Peer(connection, loop, self._take, self._lost, self.not_sent)

    # ---- what the host asks

    def refuse(self, reason: str) -> None:
        """Say why this application gets no devices, and close."""
        self.peer.send(Kind.REFUSED, head=reason)
        self.leave()

    def refuse_with(self, error: BaseException) -> None:
        """The devices could not be opened."""
        self.peer.send(Kind.RAISED, content=_packed(error))
        self.leave()

    def leave(self) -> None:
        """Close the connection."""
        self.peer.close()
        self._lost()

    def started(self, number: int, slot: int, began: float) -> None:
        """The call of a job has begun."""
        self.peer.send(Kind.STARTED, number, slot=slot, began=began)

    def retried(self, number: int, job: ScheduledJob[Any], slot: Slot, error: BaseException, is_counted: bool) -> None:
        """An attempt of a job has failed, and another one follows."""
        times = job.started_at or 0.0, job.finished_at or 0.0
        self.peer.send(Kind.RETRIED, number, int(is_counted), _packed(error), slot.number, *times)

    def progressed(self, number: int, progress: Any) -> None:
        """A job has reported its progress."""
        if (job := self._jobs.get(number)) is not None:  # else the application has gone
            self.peer.send(Kind.PROGRESSED, number, None, _content(progress), *_place(job))

    def end(self) -> None:
        """The application has disconnected: cancel its jobs, and release its leases."""
        for lease in self._leases.values():
            lease.release()
        for pump in list(self._streams.values()):  # one whose job is over is removed
            pump.close()
        for job in list(self._jobs.values()):
            job.cancel()
        self._jobs.clear()
        self._plans.clear()

    # ---- messages

    def _lost(self) -> None:
        self.end()
        self._server.left(self)

    def _take(self, messages: list[Message]) -> None:
        try:
            self._read(messages)
        except Exception:
            logger.exception("process %d has sent what is no message: it is disconnected", self.pid)
            self.leave()

    def _read(self, messages: list[Message]) -> None:
        for message in messages:
            kind = message.kind
            if kind == Kind.SUBMIT:
                self._submit(message)
            elif kind == Kind.CANCEL:
                self._cancel(message.number)
            elif kind == Kind.TAKEN:
                if (pump := self._streams.get(message.number)) is not None:
                    pump.taken(message.head)
            elif kind == Kind.RELEASE:
                if (lease := self._leases.get(message.number)) is not None:
                    lease.release()
            elif kind == Kind.FUNCTION:
                self._plans.add_function(message.number, FunctionHead(*message.head), _reference(message))
            elif kind == Kind.MODEL:
                self._plans.add_model(message.number, ModelHead(*message.head), _reference(message))
            elif kind == Kind.OPTIONS:
                self._plans.add_options(message.number, JobHead(*message.head))
            elif kind == Kind.HELLO:
                assert message.content is not None
                self._server.welcome(self, message.head, message.content)
            elif kind == Kind.UNLOAD:
                self._ask(self._unload(message.number, message.head))
            elif kind == Kind.ASSIGN:
                self.peer.send(Kind.ANSWERED, message.number, content=plain_content(self._plans.homes(message.head)))
            elif kind == Kind.FORGET:
                self._plans.forget(message.number)
            elif kind == Kind.EXPLAIN:
                self._ask(self._explain(message.number, message.head))
            elif kind == Kind.DRAINING:
                self.is_draining = True
                for pump in self._streams.values():
                    pump.channel.stop_waiting()
            elif kind == Kind.CLOSING:
                self._ask_to_end(message.number)
            elif kind == Kind.SHOW:
                self._server.show(message.head)
            elif kind == Kind.PING:
                self.peer.send(Kind.PONG)
            else:
                raise WireBroken(f"a message of kind {kind}")

    # ---- jobs

    def _submit(self, message: Message) -> None:
        number, known, content = message.number, message.plain, message.content
        try:
            if self._is_closing:  # it was copied meanwhile
                raise DirectorClosed("closed")
            if type(known) is int:
                plan, parts = self._plans.numbered(known), None
            else:
                parts = JobParts(*message.head)
                plan = self._plan(parts.options)
            if plan is None:
                self.peer.send(Kind.STALE, number)
                return
            if parts is None and plan.call is not None:
                job = self._server.backend.submit(plan.call, (plan.reference, content), plan.options, plan.waits)
            else:
                job = self._queue(number, plan, parts or JobParts(-1), content)
        except Exception as error:  # noqa: BLE001 - it was refused, or a device is gone
            self._leases.pop(number, None)
            self._streams.pop(number, None)
            self.peer.send(Kind.RAISED, number, content=_packed(error))
            return
        self._jobs[number] = job
        if self._owner is None:
            self._owner = SessionJobs(job.owner)
        job.owner = self._owner
        self._server.add(job, self, number)
        job.add_done_callback(partial(self._ended, number))

    def _plan(self, options: int | tuple[Any, ...]) -> Plan | None:
        return self._plans.numbered(options) if isinstance(options, int) else self._plans.plan(JobHead(*options))

    def _queue(self, number: int, plan: Plan, parts: JobParts, content: Any) -> ScheduledJob[Any]:
        backend, options = self._server.backend, plan.options
        if plan.style is Style.LEASE:
            lease = self._leases[number] = ServedLease(partial(backend.call, self._server.look_at_started))
            return backend.submit(lease, (), options, plan.waits)
        if plan.style is Style.LOAD:
            assert options.model is not None
            backend.beside_pins(options.model, options.allowed, is_any_enough=False)
            return backend.submit(load_only, (), options, plan.waits)
        if options.batch_rule is not None:
            extras = JobExtras(parts.batch_key, parts.batch_cost)
            return backend.submit(call_batch, ((plan.reference, content),), options, plan.waits, extras)
        if parts.stream is None:
            assert plan.call is not None
            return backend.submit(plan.call, (plan.reference, content), options, plan.waits)
        pump = self._streams[number] = StreamPump(number, parts.stream, backend, self._server.clock, self)
        call = StreamCall(stream, pump.channel)  # type: ignore[arg-type]  # a generator function
        pump.job = backend.submit(call, (plan.reference, content), options, plan.waits)
        return pump.job

    async def _unload(self, number: int, model: int) -> None:
        if (named := self._plans.model(model)) is not None:  # else another server has it
            await self._server.backend.unload(named)
        self.peer.send(Kind.ANSWERED, number)

    async def _answer(self, number: int) -> None:
        self.peer.send(Kind.ANSWERED, number)

    async def _explain(self, number: int, waiting: int) -> None:
        told: tuple[Any, ...] = (), "It does not wait."
        if (job := self._jobs.get(waiting)) is not None:
            explanation = await self._server.backend.explain(job)
            told = explanation.reasons, explanation.text
        self.peer.send(Kind.ANSWERED, number, content=plain_content(told))

    def _ask(self, question: Coroutine[Any, Any, None]) -> None:
        asking = self._loop.create_task(question, name="director:question")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    def _cancel(self, number: int) -> None:
        if (lease := self._leases.get(number)) is not None:
            lease.release()
        if (pump := self._streams.get(number)) is not None:
            pump.close()
        if (job := self._jobs.get(number)) is not None:
            job.cancel()

    def _ask_to_end(self, number: int) -> None:
        """The application closes: end its jobs that wait, tell it which ones have begun, and ask those to end."""
        self._is_closing = True
        if self._owner is not None:
            self._owner.closes = True
        self._server.end_waiting(set(self._jobs.values()))
        for begun, job in self._jobs.items():
            if job.started_at is not None and not job.done():
                self.started(begun, *_place(job))
        self._ask(self._answer(number))  # when the callbacks of those that have ended were called
        for pump in self._streams.values():
            pump.channel.close_writer()
        for job in self._jobs.values():
            if isinstance(job.location, Slot) and not job.done():
                job.location.runner.abandon(job)

    def _ended(self, number: int, ended: Job[Any]) -> None:
        self._server.forget(ended)
        if (job := self._jobs.pop(number, None)) is None or not self.peer.is_open:
            return
        self._leases.pop(number, None)
        if (pump := self._streams.get(number)) is not None:
            pump.finish(partial(self._send_outcome, number, job))
        else:
            self._send_outcome(number, job)

    def _send_outcome(self, number: int, job: ScheduledJob[Any]) -> None:
        try:
            self._send_end(number, job)
        except OSError as problem:  # there is no memory or no descriptor left
            self.not_sent(number, problem)

    def _send_end(self, number: int, job: ScheduledJob[Any]) -> None:
        self._streams.pop(number, None)
        kind, content = _outcome(job)
        self.peer.send(kind, number, None, content, *_place(job), job.finished_at or 0.0)

    def send_value(self, number: int, job: ScheduledJob[Any], value: Content) -> None:
        """Send a value of a stream."""
        self.peer.send(Kind.YIELDED, number, None, value, *_place(job))

    def not_sent(self, number: int, problem: OSError) -> None:
        """A result or a value could not be copied: that is the outcome."""
        self.peer.send(Kind.RAISED, number, content=_packed(problem))


def _place(job: ScheduledJob[Any]) -> tuple[int, float]:
    """Where and when a call has begun: goes along with all that is told of its job, and what comes first tells it."""
    began = job.started_at
    return (-1, 0.0) if began is None or not isinstance(job.location, Slot) else (job.location.number, began)


def _outcome(job: ScheduledJob[Any]) -> tuple[int, Content | None]:
    """What is sent of a job that is over."""
    if job.state is JobState.SUCCEEDED:
        return Kind.RETURNED, _content(job.result())
    if job.cancelled():
        return Kind.CANCELLED, None
    error = job.exception()
    assert error is not None
    return Kind.RAISED, _packed(error)


def _content(value: Any) -> Content:
    """What a served call has returned or reported, or what a lease returns."""
    return value if type(value) is bytes or type(value) is Body else plain_content(value)


def _packed(error: BaseException) -> Content:
    """An exception, as `error_of` reads it."""
    if isinstance(error, CallRaised):
        # Of the Director here; others are of a child's frames, where this was raised in place of the caller's error.
        notes = tuple(note for note in getattr(error, "__notes__", ()) if note.startswith("director"))
        return plain_content(tuple(RemoteError(*error.packed)._replace(notes=notes)))
    packed = pack_error(error)
    if isinstance(error, DirectorError):  # the server's own frames tell nothing
        packed = packed._replace(traceback="")
    return plain_content(tuple(packed))


def _reference(message: Message) -> bytes:
    """The bytes of a function or model."""
    assert message.content is not None
    return reference_of(message.content)
