"""The runtime of one open Director: what it is made of, and how devices come and go.

Made by `Director.start` and dropped by its `close`, so that a Director can be started again. On the event loop only.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._jobs.state import JobState
from director._runtime.devices.backoff import LoadBackoff, StartBackoff
from director._runtime.devices.health import HealthMonitor
from director._runtime.devices.memory_monitor import MemoryMonitor
from director._runtime.idle import Unloading
from director._runtime.instrumentation import Instrumentation
from director._runtime.job_lifecycle import JobLifecycle
from director._runtime.timers import FlushTimer
from director._runtime.worker_pool import WorkerPool
from director._runtime.worker_thread.call_hooks import hooked
from director._runtime.worker_thread.room import Room
from director._runtime.worker_thread.runner_events import RunnerReports, SlotPrefetch, as_job_runner
from director._runtime.worker_thread.shared_slot import SharedLoadRunner, SharedSlotGuard
from director._runtime.worker_thread.worker import Worker
from director._scheduler.memory.residency import Residency
from director._scheduler.scheduler import Scheduler
from director._scheduler.slots import DeviceSlots, Slot, SlotState, make_device_slots
from director._scheduler.wakeups import wake_up
from director._untrusted.objects import log_error, repr_of, set_cause
from director.errors import JobError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any

    from director._device import Device
    from director._devices.health.rules import HealthRules
    from director._executors.base import Executor
    from director._ipc.sharing.slot_lock import SharedSlots
    from director._jobs.job import ScheduledJob
    from director._runtime.endings import Withdraw
    from director._runtime.worker_thread.worker import NextWork
    from director._scheduler.policy import SchedulingPolicy
    from director._system.clock import Clock
    from director.errors import PlacementError
    from director.events import Hook

logger = logging.getLogger("director")
_WITHOUT_WORKER = (SlotState.IDLE, SlotState.BACKING_OFF)


class Runtime:
    """Workers, devices and jobs of one open Director.

    Args:
        devices: What it runs on.
        counts: Slots for each device.
        executor: How a slot runs a call.
        policy: How jobs are admitted and ordered.
        hooks: Take events.
        clock: Tells the time.
        rules: When a device gets no more work.
        shared: The locks of the slots, if other processes use them too.
        loop_lost: Called if the event loop is closed while the Director is open, where that is noticed.
    """

    def __init__(
        self,
        devices: tuple[Device, ...],
        counts: list[int],
        executor: Executor,
        policy: SchedulingPolicy,
        hooks: tuple[Hook, ...],
        clock: Clock,
        rules: HealthRules,
        shared: SharedSlots | None,
        loop_lost: Callable[[], None],
    ) -> None:
        self.loop = loop = asyncio.get_running_loop()
        policy.memory.check(devices)
        self.device_slots = make_device_slots(devices, counts)
        self.residency = Residency(self.device_slots, lambda key: self.loop_channel.call(self.unloading.collect, key))
        # First, while there is nothing to close: a hook may raise when it is asked what it wants.
        self.instrumentation = Instrumentation(
            hooks, clock.time, lambda fn, *args: self.loop_channel.on_loop(fn, *args)
        )
        self.scheduler = Scheduler(
            self.device_slots,
            policy,
            self.residency.resident,
            self._notify_pool,
            clock.time,
            self._flush_at,
            self._submit_later,
            self.residency.failed,
            lambda model: model.per_slot or self.residency.is_per_slot,
            lambda: self.loop_channel.call(self._check_memory),
        )
        self.job_lifecycle = JobLifecycle(
            loop, clock, self.scheduler, self.instrumentation, self._worker_lost, loop_lost
        )
        self.loop_channel = self.job_lifecycle.loop_channel
        self._idle = self.job_lifecycle.idle
        self.health = HealthMonitor(
            loop, rules, self.scheduler, self.job_lifecycle, self.loop_channel, self.instrumentation, clock
        )
        self.start_backoff = StartBackoff(
            self.scheduler, self.job_lifecycle, self.loop_channel, self.health.registry, clock
        )
        self.load_backoff = LoadBackoff(self.residency, self.scheduler, self.loop_channel, self.health.registry, clock)
        self._room = Room(self.scheduler, self.residency, self.instrumentation)
        self._reports = RunnerReports(
            self.instrumentation, self.residency, self.load_backoff, self.scheduler, self._room
        )
        self.worker_pool = WorkerPool(
            loop, self.scheduler, self.loop_channel, self.start_backoff, self.instrumentation, self._idle, self
        )
        self.memory_monitor = MemoryMonitor(
            self.scheduler,
            self.job_lifecycle,
            self.loop_channel,
            self.instrumentation,
            clock,
            rules,
            self._reports.witnesses,
        )
        self.unloading = Unloading(loop, self.scheduler, self.residency)
        self._clock = clock
        self._flush_timer = FlushTimer(clock, lambda: wake_up(self.scheduler.flush_due()))
        self._executor = executor
        self._hooks = hooks
        self._shared = shared
        try:
            for place in self.device_slots:
                self._equip(place)
        except BaseException:
            self.loop_channel.stop(has_no_threads=True)
            raise
        self.instrumentation.begin(self.scheduler)

    def _equip(self, place: DeviceSlots) -> None:
        self.worker_pool.add(place)
        for slot in place.slots:
            info = self._reports.introduce(slot)
            runner = as_job_runner(self._executor.runner(info, self._reports), slot, self.residency)
            if self._shared is not None:
                lock = self._shared.load_lock(slot.device)
                runner = SharedLoadRunner(runner, info, lock, self.residency, self._reports)
            slot.runner = hooked(runner, self._hooks)
            slot.can_unload, slot.can_sleep = slot.runner.can_unload, slot.runner.can_sleep
            if self._shared is None:  # a shared slot must hold no jobs while another process has it
                slot.runner.set_prefetch(SlotPrefetch(slot, self.scheduler, self._end_returned))

    def fail(self, cause: BaseException) -> None:
        """The Director coroutine failed: every open job fails with the cause."""

        def withdraw(jobs: deque[ScheduledJob[Any]]) -> None:
            self.scheduler.remove_all(jobs, JobState.FAILED)
            jobs.extend(self.scheduler.running())

        self.job_lifecycle.endings.withdraw(withdraw, self._end_failed("the Director failed", cause))

    def join(self, device: Device, count: int) -> None:
        """A device of a fleet has joined: give it work."""
        place = DeviceSlots(len(self.device_slots), device, count, len(self.scheduler.slots))
        self._equip(place)
        self.health.adopt(place)
        wake = self.scheduler.join(place)
        self.instrumentation.joined(device, self.scheduler)
        wake_up(wake)

    def leave(self, device: Device, reason: str) -> None:
        """A device of a fleet has left."""
        place = next((place for place in self.device_slots if place.device == device and not place.is_gone), None)
        if place is None:  # it joined while we were closing, and was not added
            return
        place.is_gone = True
        self.start_backoff.leave(place)
        self.residency.forget_assigned(place)
        self.health.registry.quarantine(place, reason, for_good=True)

    async def lend(self, place: DeviceSlots) -> None:
        """Give a device no work, wait until its calls have ended, unload what is loaded there, and free its memory.

        Cancellation: the device gets no work until `take_back`.
        """
        changed = asyncio.Event()
        self.scheduler.lend(place, lambda: self.loop_channel.call(changed.set))
        while not all(slot.state in _WITHOUT_WORKER for slot in place.slots):
            await changed.wait()
            changed.clear()
        for slot in place.slots:
            if slot.thread.started:
                await asyncio.wrap_future(slot.thread.submit(slot.runner.close))
                await asyncio.wrap_future(slot.thread.submit(free_caches))

    def take_back(self, place: DeviceSlots) -> None:
        """Give a device that was lent work again."""
        wake_up(self.scheduler.take_back(place))

    def has_waiting(self, place: DeviceSlots) -> bool:
        """Whether a job waits that may run on a device."""
        return self.scheduler.has_waiting(place)

    def counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many run: in a slot, or with their outcome not delivered yet."""
        waiting, started = self.scheduler.counts(self.loop_channel.jobs)
        return waiting, sum(not job.done() for job in started)

    def _notify_pool(self) -> None:
        """From any thread: a slot needs a worker."""
        self.worker_pool.notify()

    def _flush_at(self, time: float) -> None:
        """From any thread: have the scheduler flush due batches at `time`."""
        self.loop_channel.on_loop(self._flush_timer.set, time)

    def _submit_later(self, job: ScheduledJob[Any], wait_for_room: bool) -> None:
        """From any thread: a job was submitted during a decision of the scheduler."""
        self.loop_channel.call(self.job_lifecycle.admit_deferred, job, wait_for_room)

    def _end_returned(self, job: ScheduledJob[Any]) -> None:
        """From any thread: a prefetched job was given back while the Director closes."""
        self.loop_channel.call(self.job_lifecycle.end_returned, job)

    def _check_memory(self) -> None:
        """Memory is accounted for, an unload is over, pinned models have come, or jobs have left: look again."""
        self.memory_monitor.run()
        self.memory_monitor.await_returns()
        self.unloading.check()
        errors: dict[ScheduledJob[Any], PlacementError] = {}
        withdraw: Withdraw = lambda jobs: self.scheduler.fail_beside_pins(jobs, errors)  # noqa: E731
        self.job_lifecycle.endings.withdraw(withdraw, lambda job: self.job_lifecycle.end_failed(job, errors[job]))
        wake_up(self.scheduler.wake_for_waiting())

    def _worker_lost(self, job: ScheduledJob[Any], error: BaseException) -> None:
        self.health.note_loss(job, error)

    def make_worker(self, slot: Slot) -> Callable[[], None]:
        """What the thread of a slot has to call."""
        scheduler, loop_channel, job_lifecycle = self.scheduler, self.loop_channel, self.job_lifecycle

        def guard(note_wait: Callable[[], None]) -> NextWork:
            next_work: NextWork = scheduler.next_work
            if self._shared is not None:
                lock = self._shared.slot_lock(slot.device, slot.index)
                next_work = SharedSlotGuard(lock, scheduler, note_wait, self._check_idle).take
            return self.start_backoff.on_trial(slot, next_work)

        worker = Worker(
            slot,
            scheduler,
            loop_channel,
            self.instrumentation,
            job_lifecycle,
            self.health.quarantine,
            self._room,
            guard,
        )
        return worker.run

    def _check_idle(self) -> None:
        """On a slot's thread, before it waits for another process: deliver its posts, and check for idleness."""
        self.loop_channel.call(self._idle.check)

    def worker_failed(self, slot: Slot, error: BaseException) -> None:
        """A worker has raised outside of any call, by a bug of ours or for lack of memory: its jobs fail.

        The slot gets another worker; several failures in a row put its device into quarantine.
        """
        log_error(logger, error, "a worker on %s failed", slot.device.label)
        late, slot.missed_deadline = slot.missed_deadline, []
        held = [*slot.current_jobs(), *slot.prefetched]
        self.loop_channel.deliver()  # it may have posted outcomes without a wake-up
        held = [job for job in held if job.state is JobState.RUNNING and job.location is slot]
        end = self._end_failed(f"the worker on {slot.device.label} failed", error)
        self.job_lifecycle.endings.withdraw(lambda jobs: jobs.extend([*held, *late]), end)
        self.health.registry.worker_failed(slot.place)

    def _end_failed(self, what: str, cause: BaseException) -> Callable[[ScheduledJob[Any]], None]:
        return lambda job: self.job_lifecycle.end_failed(job, _failure(what, cause))


def _failure(what: str, cause: BaseException) -> JobError:
    error = JobError(f"{what}: {repr_of(cause)}")
    set_cause(error, cause)
    return error
