"""The `Backend` of a Director whose devices are in a server process. On the event loop, but for what says otherwise."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from director._client.encoding import Encoder
from director._client.job_messages import JobMessages, value_of
from director._client.queue import ServerQueue, ServerRetries
from director._client.room import Room
from director._client.server_calls import ServerCalls
from director._ipc.log_relay import relay
from director._ipc.server.peer import Kind
from director._jobs.calls import StreamCall
from director._jobs.state import JobState
from director._runtime.endings import forget_callbacks
from director._runtime.instrumentation import Instrumentation
from director._runtime.job_lifecycle import JobLifecycle
from director._scheduler.explanation import Explanation
from director._scheduler.memory.fitting import fitting_slots
from director._scheduler.memory.residency import check_replicas, homes
from director._scheduler.slots import make_device_slots
from director._untrusted.objects import bearable, log_error
from director.errors import JobAborted, JobError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._client.connector import Connector, Facts
    from director._client.link import Link
    from director._device import Device
    from director._executors.around import Around
    from director._ipc.server.peer import Message
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._runtime.stats import Stats
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.slots import DeviceSlots
    from director._system.clock import Clock
    from director.events import Hook

logger = logging.getLogger("director")
_RUNNING, _QUEUED = JobState.RUNNING, JobState.QUEUED
_SILENCE = 1.0  # seconds after which a server that does not answer is not healthy


class ServedDirector:
    """A Director of this application in a server process.

    Args:
        connector: Finds the server, or starts it.
        link: The connection that has been made.
        facts: What the server has told of itself.
        hooks: Take the events of this application's jobs.
        clock: Tells the time: the machine's.
        policy: The bounds of the queue, for all applications together.
        loop_lost: Called if the event loop is closed while the Director is open, where that is noticed.
    """

    def __init__(
        self,
        connector: Connector,
        link: Link,
        facts: Facts,
        hooks: tuple[Hook, ...],
        clock: Clock,
        policy: SchedulingPolicy,
        loop_lost: Callable[[], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.device_slots: list[DeviceSlots] = make_device_slots(*facts.devices())
        self.is_per_slot = facts.is_per_slot
        self.is_deciding = False
        self._connector = connector
        self._dashboards: list[str] = []  # paths of the sockets that each server opens, to show itself
        self._clock = clock
        self._stats = facts.stats
        self._model_slots: WeakKeyDictionary[Model[Any], frozenset[int] | None] = WeakKeyDictionary()
        self._numbers = itertools.count()  # of questions
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reconnecting: asyncio.Task[None] | None = None
        self._gone = ""  # why there is another server, while there is none
        self._ended: Callable[[], None] = lambda: None
        self._heard, self._asked = clock.time(), 0.0  # when the server was last heard, and asked whether it is there
        self._is_closing = self._is_in_grace = False
        self._encoder = Encoder(self._model_slots.get, clock.time, self._forget_later)
        room = Room(policy, sum(len(place.slots) for place in self.device_slots), self._retry_after)
        self.queue = ServerQueue(self.device_slots, room, self._encoder, self._receive, self._fail_unsent)
        for slot in self.queue.slots:
            slot.runner = ServerCalls(self.queue)
        self.instrumentation = Instrumentation(
            hooks, clock.time, lambda fn, *args: self.lifecycle.loop_channel.on_loop(fn, *args)
        )
        self._retries = ServerRetries(clock.time, self.queue)
        self.lifecycle = JobLifecycle(
            self.loop,
            clock,
            self.queue,
            self.instrumentation,
            lambda job, error: None,
            loop_lost,
            self._retries,
        )
        self._channel = self.lifecycle.loop_channel
        self.submit = self.lifecycle.create_job
        self.call = self._channel.call
        self._jobs = JobMessages(self.queue, self.lifecycle, self.instrumentation, clock.time)
        self.instrumentation.begin(self.queue)
        self._adopt(link)

    # ---- `Backend`

    @property
    def any_healthy(self) -> bool:
        """Whether the server answers, and a device gets work."""
        return self.unreachable is None and any(
            device.health.value == "healthy" and device.abandoned < device.slots for device in self._stats.devices
        )

    @property
    def unreachable(self) -> str | None:
        """Why the server can't be asked, whose last snapshot may not hold any more; `None` if it can be."""
        link = self.queue.link
        if link is None:
            return f"the server process {self._gone}, and another one is being started"
        now = self._clock.time()
        if now - self._heard > _SILENCE:
            if self._asked <= self._heard:
                self._asked = now
                link.peer.send(Kind.PING)
            elif now - self._asked > _SILENCE:
                return "the server process does not answer"
        return None

    def assign(
        self, model: Model[Any], allowed: frozenset[int] | None, _wanted: frozenset[int] | None
    ) -> frozenset[int] | None:
        """Numbers of the slots that may load `model`. Which ones do if it has `replicas`, the server decides.

        Raises:
            PlacementError: It wants more replicas than there are devices for it.
        """
        check_replicas(model, homes(self.device_slots, allowed))
        self._model_slots[model] = allowed
        return allowed

    def fitting(self, model: Model[Any] | None, memory: int, allowed: frozenset[int] | None) -> frozenset[int] | None:
        """Numbers of the slots, among `allowed`, whose devices could ever hold `model` and a call's `memory`.

        Raises:
            PlacementError: None could.
        """
        budgets = [device.memory.budget for device in self._stats.devices]
        return fitting_slots(dict(zip(self.device_slots, budgets, strict=True)), model, memory, allowed)

    def surround(self, around: Around | None) -> None:
        """Nothing: the server enters it."""

    def beside_pins(
        self, _model: Model[Any], allowed: frozenset[int] | None, _is_any_enough: bool
    ) -> frozenset[int] | None:
        """All of `allowed`: the server decides."""
        return allowed

    async def unload(self, model: Model[Any]) -> None:
        """Have the server unload a model, for all applications. Cancellation: stops waiting, nothing else."""
        if (link := self.queue.link) is None:
            return  # it is gone with the server
        named = self._encoder.model(model)
        await self._ask(lambda number: link.ask(Kind.UNLOAD, number, named))

    async def homes(self, model: Model[Any], allowed: frozenset[int] | None) -> frozenset[int] | None:
        """Those of `allowed` that load `model`, as the server has chosen. Cancellation: stops waiting, nothing else."""
        if model.replicas is None or (link := self.queue.link) is None:
            return allowed
        named = self._encoder.model(model)
        chosen = await self._ask(lambda number: link.ask(Kind.ASSIGN, number, named))
        return allowed if chosen is None else frozenset(chosen)

    async def explain(self, job: ScheduledJob[Any]) -> Explanation:
        """What a job waits for, as the server says. Cancellation: stops waiting, nothing else."""
        if (link := self.queue.link) is None:
            return Explanation(job, (), f"{job!r} waits: {self.unreachable}")
        reasons, text = await self._ask(lambda number: link.peer.send(Kind.EXPLAIN, number, job.id)) or ((), "")
        return Explanation(job, reasons, text)

    async def _ask(self, send: Callable[[int], None]) -> Any:
        """Send a question with a number, and wait for its answer; `None` if the server has gone."""
        number = next(self._numbers)
        answer = self._answers[number] = self.loop.create_future()
        try:
            send(number)
            return await answer
        finally:
            del self._answers[number]

    def stats(self) -> Stats:
        """The last snapshot of the server, of all applications together, with the jobs that these have refused."""
        refused = self.queue.refused()  # the server got nothing of them
        return replace(self._stats, rejected=self._stats.rejected + refused) if refused else self._stats

    def show(self, path: str) -> None:
        """Have the server open the socket of a dashboard, and each that comes after it."""
        self._dashboards.append(path)
        if (link := self.queue.link) is not None:
            link.peer.send(Kind.SHOW, head=path)

    def start(
        self,
        _name: str,
        ended: Callable[[], None],
        _joined: Callable[[Device], None],
        _left: Callable[[Device, str], None],
    ) -> None:
        """Jobs are taken from now on; `ended` is called if there is no server any more."""
        self._ended = ended

    def opened(self) -> None:
        """Tell the hooks that jobs are accepted."""
        self.instrumentation.opened(tuple(place.device for place in self.device_slots))

    def join(self, device: Device, count: int) -> None:
        """Never called: the devices of a server stay."""

    def leave(self, device: Device, reason: str) -> None:
        """Never called: the same."""

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until none of our jobs waits or runs, for at most `timeout` seconds."""
        for link in self.queue.links():
            link.peer.send(Kind.DRAINING)
        if await self.lifecycle.idle.wait(timeout, self._clock, for_abandoned=False):
            self.instrumentation.drained()

    async def close(self, grace: float) -> None:
        """End what is left of our jobs, and leave the server.

        Args:
            grace: Seconds that running calls get to end.
        """
        self._is_closing = True
        self.queue.stop_admission()
        self.lifecycle.is_closing = True
        self._end_unsent()
        try:
            await self._ask_to_end()
            self._is_in_grace = True
            await self.lifecycle.idle.wait(grace, self._clock, for_abandoned=True)
        finally:
            self._is_in_grace = False
            self._abort(grace)
            self._leave()
            self.lifecycle.idle.give_up()

    async def _ask_to_end(self) -> None:
        """Have each server end our jobs that wait there, and ask our calls to end.

        It tells which of them have begun, as only it knows. One that does not answer is not waited for.
        """
        asked = [self._ask(partial(link.peer.send, Kind.CLOSING)) for link in self.queue.links()]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*asked), _SILENCE)

    def _end_unsent(self) -> None:
        """Fail the jobs that no server has got."""
        self.lifecycle.endings.withdraw(
            partial(self.queue.remove_unsent, state=JobState.FAILED), self.lifecycle.end_closed
        )

    def _abort(self, grace: float) -> None:
        """Fail what is left after `grace` seconds; of jobs that are not known to have begun it is not known either."""
        self._end_unsent()
        for job in self.queue.running():
            if job.finished_at is None:
                logger.warning("%r did not end in %g s; its call goes on in the server process", job, grace)
        self.lifecycle.abort_running(grace)
        self.lifecycle.endings.withdraw(
            partial(self.queue.remove_all, state=JobState.FAILED),
            lambda job: self.lifecycle.end_closed(job, JobAborted(grace)),
        )

    def shorten_grace(self, grace: float) -> None:
        """While it closes: running calls get at most `grace` seconds from now."""

        def end() -> None:
            if self._is_in_grace:
                self.lifecycle.idle.give_up()

        self._clock.call_later(grace, end)

    def lose_loop(self) -> None:
        """The event loop was closed, so that nothing can be delivered: every job is dropped."""
        jobs = [*self.queue.running(and_waiting=True), *self._channel.jobs()]
        for link in self.queue.links():
            link.peer.drop()  # first: nothing can be sent any more
        self._channel.entries.clear()
        for job in jobs:
            forget_callbacks(job)
            if isinstance(job.fn, StreamCall):
                job.fn.channel.close_reader()
            self.lifecycle.end_cancelled(job, "its event loop was closed")
        self._is_closing = True
        self.lifecycle.stop()
        self._channel.wakeup.stop(has_no_threads=True)

    def finish(self) -> None:
        """Closed: tell the hooks."""
        self.instrumentation.end()

    # ---- the server

    def _leave(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        for link in self.queue.links():
            link.close()
        for number in self._answers:
            self._answer(number)
        self.lifecycle.stop()
        self._channel.stop(has_no_threads=True)

    def _adopt(self, link: Link) -> None:
        link.take, link.lost, link.not_sent = self._take, self._lost, self._not_sent
        self._heard = self._clock.time()
        self.queue.connected(link)
        for path in self._dashboards:
            link.peer.send(Kind.SHOW, head=path)

    def _lost(self, link: Link) -> None:
        """A server has ended, or was killed."""
        is_current = link is self.queue.link
        if is_current:
            self.queue.disconnected()
        elif link in self.queue.old_links:
            self.queue.old_links.remove(link)
        if is_current and not self._is_closing:  # before callers hear of their jobs
            logger.warning("the server process %r (pid %d) was lost: another one is started", self._name, link.pid)
            self._reconnect("was lost")
        for job in list(link.calls.values()):
            self._lose(job)
        for number in self._answers:
            self._answer(number)
        link.calls.clear()
        self._channel.deliver()
        self.lifecycle.idle.check()

    @property
    def _name(self) -> str:
        return self._connector.name

    def _lose(self, job: ScheduledJob[Any]) -> None:
        """The server that had a job is gone."""
        slot = job.location
        error = WorkerDied(None, self.queue.slots[0].device if slot is self.queue else slot.device)  # type: ignore[union-attr]  # else it has begun
        error._server = self._name
        if job.state is _RUNNING:
            self._channel.entries.append((self.lifecycle.handle_error, (job, error)))
        elif job.state is _QUEUED and self._retries.note_waiting(job):
            self.queue.requeue(job)
        elif self.queue.fail(job):
            self._channel.entries.append((self.lifecycle.end_failed, (job, error)))

    def _reconnect(self, why: str) -> None:
        self._gone = why
        self._reconnecting = self.loop.create_task(self._find_again(), name="director:server")
        self._reconnecting.add_done_callback(self._found_again)

    async def _find_again(self) -> None:
        link, facts = await self._connector.connect_again(self._clock)
        if facts.devices() != (tuple(p.device for p in self.device_slots), [len(p.slots) for p in self.device_slots]):
            link.close()
            raise JobError(f"the new server process {self._name!r} has other devices: {facts.devices()}")
        self._stats = facts.stats
        self._adopt(link)

    def _found_again(self, task: asyncio.Task[None]) -> None:
        self._reconnecting = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.critical("there is no server process %r any more", self._name, exc_info=error)
        self.queue.stop_admission()
        self._ended()

        def end(job: ScheduledJob[Any]) -> None:
            self.lifecycle.end_failed(job, JobError(f"there is no server process {self._name!r}: {error}"))

        self.lifecycle.endings.withdraw(partial(self.queue.remove_all, state=JobState.FAILED), end)

    def _move_on(self, link: Link) -> None:
        """The server has another version of a module, and takes no more applications: the next one has ours."""
        if link is self.queue.link:
            self.queue.replaced()
            self._reconnect("has another version of the code")

    def _forget_later(self, number: int) -> None:
        """From any thread, within anything: a model or batch function was collected."""
        self._channel.call(self._forget, number)

    def _forget(self, number: int) -> None:
        for link in self.queue.links():
            link.forget(number)

    def _receive(self) -> None:
        if (link := self.queue.link) is not None and asyncio._get_running_loop() is self.loop:
            link.peer.receive()

    def _retry_after(self, waiting: int) -> float | None:
        """Seconds that `waiting` jobs take, at the pace of the server's last snapshot."""
        jobs = sum(device.jobs for device in self._stats.devices)
        busy = sum(device.busy_seconds for device in self._stats.devices)
        return waiting * busy / jobs / len(self.queue.slots) if jobs and busy else None

    # ---- messages

    def _take(self, link: Link, messages: list[Message]) -> None:
        self._heard = self._clock.time()
        for message in messages:
            try:
                if not self._jobs.take(link, message):
                    self._take_other(link, message)
            except BaseException as error:  # noqa: BLE001 - the messages after it must be taken
                log_error(logger, error, "a message of the server process %r could not be taken", self._name)
        self.queue.note_counts()  # first: a caller that gets its result may submit at once
        if self._channel:
            self._channel.deliver()
        self.lifecycle.idle.check()
        if link in self.queue.old_links and not link.calls:
            self.queue.old_links.remove(link)
            link.close()

    def _take_other(self, link: Link, message: Message) -> None:
        kind = message.kind
        if kind == Kind.ANSWERED:
            self._answer(message.number, message)
        elif kind == Kind.STALE:
            self._stale(link, message.number)
        elif kind == Kind.STATS:
            self._stats = value_of(message)
        elif kind == Kind.LOGGED:
            relay(value_of(message), f"server {self._name}")

    def _stale(self, link: Link, number: int) -> None:
        """A call was not made: the next server makes it."""
        job = link.calls.pop(number, None)
        self._move_on(link)
        if job is not None and job.state is _QUEUED:
            self.queue.requeue(job)

    def _answer(self, number: int, message: Message | None = None) -> None:
        if (waiter := self._answers.get(number)) is not None and not waiter.done():
            waiter.set_result(None if message is None or message.content is None else value_of(message))

    def _not_sent(self, link: Link, number: int, problem: OSError) -> None:
        job = link.calls.pop(number, None)
        if job is not None and self.queue.fail(job):
            self.lifecycle.end_failed(job, problem)
        self.lifecycle.idle.check()

    def _fail_unsent(self, job: ScheduledJob[Any], error: Exception) -> None:
        """A job that waited for a server can't be sent to it."""
        if self.queue.fail(job):
            self._channel.call(self.lifecycle.end_failed, job, bearable(error))
