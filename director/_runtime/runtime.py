"""The crew of one open Director: the coroutine that hires workers and the callbacks that reap them.

Made by `Director.start` and thrown away by its `close`, so that a Director can be started again. On the loop only.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from director._clock import MonotonicClock
from director._executors.base import NeverStarted
from director._jobs.calls import StreamCall
from director._jobs.state import JobState
from director._runtime.call_hooks import attended
from director._runtime.closed_loop import drop_jobs, forget_callbacks
from director._runtime.health import Care
from director._runtime.instrumentation import Chronicle
from director._runtime.job_lifecycle import Ledger
from director._runtime.loop_channel import Outbox
from director._runtime.shared_slot import TurnTaker
from director._runtime.start_backoff import Starts
from director._runtime.timers import Ripening
from director._runtime.worker import Shift, Supply
from director._runtime.worker_pool import Hiring, create_task
from director._scheduler.residency import Residency
from director._scheduler.scheduler import Dispatch
from director._scheduler.slots import Place, Slot, SlotState, make_places
from director._threads import SlotThread
from director._untrusted.objects import is_a, log_error, repr_of, set_cause
from director.errors import JobError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

    from director._clock import Clock
    from director._device import Device
    from director._devices.health.rules import HealthRules
    from director._executors.base import Executor
    from director._jobs.job import Job
    from director._scheduler.policy import Policy
    from director._scheduler.wakeups import Ring
    from director._sharing.slot_lock import SharedSlots
    from director.events import Hook

logger = logging.getLogger("director")

_GRACE = 1.0  # seconds that running jobs get to end when a Director is left in haste
_ABORTING = 5.0  # seconds in which a call that can be ended has ended
_ENDED, _LEFT = "its process is ended", "its thread can't be stopped and is left behind"
_UNLOADING = 10.0  # seconds that a slot gets to unload its models


class Crew:
    """Workers, devices and jobs of one open Director.

    Args:
        devices: What it runs on.
        counts: Slots for each device.
        executor: How a slot runs a call.
        policy: How jobs are admitted and ordered.
        hooks: Take events.
        clock: Tells the time.
        rules: When a device gets no more work.
        shared: The turnstiles of the slots, if other processes use them too.
    """

    def __init__(
        self,
        devices: tuple[Device, ...],
        counts: list[int],
        executor: Executor,
        policy: Policy,
        hooks: tuple[Hook, ...],
        clock: Clock,
        rules: HealthRules,
        shared: SharedSlots | None = None,
    ) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.places = make_places(devices, counts)
        self.residency = Residency(self.places)
        # Before there is anything to close: it asks the hooks what they want, which may raise.
        self.chronicle = Chronicle(hooks, clock.time, lambda fn, *args: self.outbox.on_loop(fn, *args))
        self.outbox = Outbox(loop)
        self._hiring = hiring = Hiring(loop, self.outbox, self._hire, self.fail)
        self.dispatch = hiring.dispatch = Dispatch(
            self.places, policy, self.residency.warm, hiring.call, clock.time, self._ripen_at
        )
        self.ledger = Ledger(loop, clock, self.dispatch, self.outbox, self.chronicle)
        self.outbox.deliver = self.ledger.deliver
        self.care = Care(loop, rules, self.dispatch, self.ledger, self.outbox, self.chronicle, clock)
        self.starts = Starts(self.dispatch, self.ledger, self.outbox, self.care.warden, clock)
        self._clock = clock
        self._resting: list[asyncio.Future[bool]] = []
        self._ripening = Ripening(clock, self._ripen)
        self._closing: dict[Slot, Future[None]] = {}  # threads that were told to end, and their last call
        self._workers: set[asyncio.Task[None]] = set()
        self._threads: set[asyncio.Future[None]] = set()  # of workers; these end when the thread has left its shift
        self._executor = executor
        self._hooks = hooks
        self._shared = shared
        try:
            for slot in self.dispatch.slots:
                self._equip(slot)
        except BaseException:
            self.outbox.stop(nobody_rings=True)
            raise
        self.chronicle.begin(self.dispatch)

    def _equip(self, slot: Slot) -> None:
        slot.thread = SlotThread(f"director:{slot.device.label}/{slot.number - slot.place.slots[0].number}")
        slot.seat = attended(self._executor.seat(slot, self.residency, self.chronicle), self._hooks)
        if self._shared is None:  # a slot that other processes use too holds nothing when it is theirs
            slot.seat.supply(Supply(slot, self.dispatch))

    async def direct(self) -> None:
        """The Director coroutine: hire a worker for work that waits and a slot that is free; never await one."""
        await self._hiring.direct()

    async def rest(self, timeout: float | None = None, clock: Clock | None = None) -> bool:
        """Wait until every job is over and every worker reaped; False if that takes longer than `timeout` seconds.

        The seconds are those of `clock`, by default the Director's own. Workers leave as soon as they find nothing to
        do, and no generator waits for a reader without limit. Cancellation: stops waiting, nothing else.
        """
        for _, call in self._streams():
            call.bridge.hurry()
        for slot in self.dispatch.dismiss():
            slot.ring()
        self._hiring.call_here()  # batches that were held may go now
        waiter: asyncio.Future[bool] = self.loop.create_future()
        self._resting.append(waiter)
        self.ledger.watch = self._look_at_rest
        self._look_at_rest()
        if timeout is not None and timeout <= 0:
            _answer(waiter, False)
        clock = clock or self._clock
        timer = None if timeout is None else clock.call_later(timeout, partial(_answer, waiter, False))
        try:
            return await waiter
        finally:
            self._resting.remove(waiter)
            if timer is not None:
                timer.cancel()

    async def stop(self) -> None:
        """Cancel what waits, give what runs a short grace, unload the models and let the threads end."""
        self.dispatch.shut()
        self.ledger.cancel_waiting()
        for job, _ in self._streams():  # these end at their next value, or at once if they wait for their reader
            self.ledger.cancel(job, "the Director closed")
        is_calm = await self.rest(_GRACE, MonotonicClock())  # a call ends in real time, whatever a test's clock says
        if not is_calm and self._abandon_running():
            await self.rest(_ABORTING, MonotonicClock())
        self.starts.stop()
        self.retire()
        await self._join()
        self.outbox.stop(nobody_rings=all(slot.state is SlotState.IDLE for slot in self.dispatch.slots))
        self._stop_timers()
        await self.care.join()
        for waiter in self._resting:
            _answer(waiter, False)

    def retire(self) -> None:
        """Nobody will be hired any more: cancel what waits, and let each thread unload its models and end by itself."""
        self.dispatch.shut()
        self.ledger.cancel_waiting()
        for slot in self.dispatch.dismiss():
            slot.ring()
        for slot in self.dispatch.slots:
            if slot.thread.started and slot not in self._closing:
                self._closing[slot] = slot.thread.submit(slot.seat.close)
                slot.thread.shutdown(wait=False)

    def abandon(self) -> None:
        """The loop is going away under us: as `retire`, and what runs is over for its callers, if there are any."""
        self.retire()
        for job in self.dispatch.running():
            self.ledger.cancel(job, "the Director closed")
        self._stop_timers()
        self.outbox.stop(nobody_rings=False)
        for thread in self._threads:
            thread.cancel()

    def lose_loop(self) -> None:
        """The loop was closed under us, so that nothing can be delivered: every job is dropped, and the threads end."""
        drop_jobs(self.dispatch, self.outbox, self.ledger)
        self.retire()
        self._stop_timers()
        self.outbox.doorbell.stop(nobody_rings=False)
        for thread in self._threads:
            forget_callbacks(thread)
            thread.cancel()

    def fail(self, cause: BaseException) -> None:
        """The Director itself failed: every open job fails with the cause, so that nobody waits for ever."""

        def withdraw(jobs: deque[Job[Any]]) -> None:
            self.dispatch.withdraw_all(jobs, JobState.FAILED)
            jobs.extend(self.dispatch.running())

        self.ledger.endings.withdraw(withdraw, self._end_failed("the Director failed", cause))

    def join(self, device: Device, count: int) -> None:
        """A device of a fleet has come: give it work.

        Args:
            device: A new one.
            count: Its slots.
        """
        place = Place(len(self.places), device, count, len(self.dispatch.slots))
        for slot in place.slots:
            self._equip(slot)
        self.care.adopt(place)
        ring = self.dispatch.join(place)
        self.chronicle.joined(device, self.dispatch)
        _ring(ring)

    def leave(self, device: Device, reason: str) -> None:
        """A device of a fleet is there no more."""
        place = next((place for place in self.places if place.device == device and not place.is_gone), None)
        if place is None:  # it had come while we were closing, and was not taken in
            return
        place.is_gone = True
        self.starts.leave(place)
        self.residency.forget_homes(place)
        self.care.warden.lose(place, reason, for_good=True)

    def counts(self) -> tuple[int, int]:
        """Jobs that wait, and jobs that were started and are not over: in a slot, or with their outcome on its way."""
        waiting, started = self.dispatch.census(self.outbox.jobs)
        return waiting, sum(not job.done() for job in started)

    def _streams(self) -> list[tuple[Job[Any], StreamCall[Any]]]:
        """The streams in slots."""
        running = [(job, job._fn) for job in self.dispatch.running()]
        return [(job, call) for job, call in running if isinstance(call, StreamCall)]

    async def _join(self) -> None:
        """Wait for the threads that no call holds; what takes too long is left behind, with a warning."""
        idle = {
            asyncio.wrap_future(closing): slot
            for slot, closing in self._closing.items()
            if slot.state is SlotState.IDLE
        }
        if not idle:
            return
        closed, stuck = await asyncio.wait(idle, timeout=_UNLOADING)
        for future in stuck:
            logger.warning("unloading takes more than %g s: %r is left behind", _UNLOADING, idle[future])
        for future in closed:
            idle[future].thread.join()

    def _ripen_at(self, moment: float) -> None:
        """From any thread: have the dispatch look at `moment` whether batches are ripe."""
        self.outbox.on_loop(self._ripening.set, moment)

    def _ripen(self) -> None:
        _ring(self.dispatch.ripen())

    def _stop_timers(self) -> None:
        self.ledger.stop()
        self.care.stop()
        self.starts.stop()
        self._ripening.stop()

    async def _hire(self, slot: Slot) -> None:
        await slot.place.permits.acquire()  # never waits: an idle slot and a free permit are the same thing
        try:
            thread = self.loop.run_in_executor(slot.thread, self._shift(slot).work)
        except Exception as error:  # noqa: BLE001 - no thread or file is left in the system, as a rule
            slot.place.permits.release()
            self.starts.failed(slot, error)
            return
        except BaseException:
            slot.place.permits.release()
            self.dispatch.reaped(slot)
            raise
        self.starts.hired(slot)
        self._threads.add(thread)
        try:
            worker = create_task(self.loop, self._work(thread), f"director:{slot.device.label}")
        except BaseException:
            thread.add_done_callback(partial(self._vacate, slot))
            raise
        self._workers.add(worker)
        worker.add_done_callback(partial(self._reap, slot, thread))
        self.chronicle.hired(slot)

    def _shift(self, slot: Slot) -> Shift:
        shift = Shift(slot, self.dispatch, self.outbox, self.chronicle, self.ledger, self.care.lose)
        if self._shared is not None:
            shift.take = TurnTaker(self._shared.turnstile(slot), self.dispatch, shift.note_wait, self._in_line).take
        shift.take = self.starts.on_trial(slot, shift.take)
        return shift

    def _in_line(self) -> None:
        """On a slot's thread, which waits for another process: the loop hears of what was posted, and may find rest."""
        self.outbox.call(self._look_at_rest)

    @staticmethod
    async def _work(thread: asyncio.Future[None]) -> None:
        """One worker: lives as long as its shift. Shielded, for cancelling the task does not end the thread."""
        await asyncio.shield(thread)

    def _reap(self, slot: Slot, thread: asyncio.Future[None], worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled():
            worker.exception()  # the thread's own, which `_vacate` answers
        if thread.done():
            self._vacate(slot, thread)
        else:  # the task was cancelled; the permit goes back when the thread has ended
            thread.add_done_callback(partial(self._vacate, slot))

    def _vacate(self, slot: Slot, thread: asyncio.Future[None]) -> None:
        self._threads.discard(thread)
        if thread.cancelled():
            return  # abandoned with its loop
        error = thread.exception()
        try:
            if error is not None and not is_a(error, NeverStarted):
                self._fail_worker(slot, error)
        finally:
            slot.place.permits.release()
            if is_a(error, NeverStarted):
                self.starts.failed(slot, error)
            else:
                _ring(self.dispatch.reaped(slot))
        self.chronicle.reaped(slot)
        self._look_at_rest()

    def _fail_worker(self, slot: Slot, error: BaseException) -> None:
        """A worker has raised outside of any call, by a bug of ours or a lack of memory: what it held fails with it.

        Nothing else does. The slot goes on with another worker; several in a row put its device into quarantine.
        """
        log_error(logger, error, "a worker on %s failed", slot.device.label)
        late, slot.late = slot.late, []
        held = [*slot.inside(), *slot.ahead]
        self.outbox.deliver()  # what it has posted is delivered as ever, and may be without a ring
        held = [job for job in held if job._stage is JobState.RUNNING and job._where is slot]
        end = self._end_failed(f"the worker on {slot.device.label} failed", error)
        self.ledger.endings.withdraw(lambda jobs: jobs.extend([*held, *late]), end)
        self.care.warden.worker_failed(slot.place)

    def _end_failed(self, what: str, cause: BaseException) -> Callable[[Job[Any]], None]:
        return lambda job: self.ledger.end_failed(job, _failure(what, cause))

    def _look_at_rest(self) -> None:
        if self._resting and self.dispatch.at_rest() and not self.outbox:
            for waiter in self._resting:
                _answer(waiter, True)

    def _abandon_running(self) -> bool:
        """Cancel what runs; True if some of it was ended, and will be gone in a moment."""
        aborted = {slot for slot in self.dispatch.slots if slot.seat.abort()}
        for slot in self.dispatch.slots:
            for job in slot.inside():  # also one whose caller has left before: its call goes on
                fate = _ENDED if slot in aborted else _LEFT
                logger.warning("%r did not end in %g s; %s", job, _GRACE, fate)
        for job in self.dispatch.running():
            self.ledger.cancel(job, "the Director closed")
        return bool(aborted)


def _ring(ring: Ring) -> None:
    if ring is not None:
        ring()


def _answer(waiter: asyncio.Future[bool], answer: bool) -> None:
    if not waiter.done():
        waiter.set_result(answer)


def _failure(what: str, cause: BaseException) -> JobError:
    error = JobError(f"{what}: {repr_of(cause)}")
    set_cause(error, cause)
    return error
