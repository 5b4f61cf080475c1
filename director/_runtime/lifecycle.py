"""Start and close of one open Director. On the event loop only."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from director._clock import MonotonicClock
from director._executors.base import Executor, FleetExecutor
from director._jobs.calls import LocalCall, StreamCall
from director._runtime.endings import forget_callbacks
from director._runtime.runtime import Runtime
from director._runtime.stats import Stats, snapshot
from director._runtime.worker_pool import create_task
from director._scheduler.slots import SlotState
from director._sharing import shared_slots

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from director._clock import Clock
    from director._device import Device
    from director._devices.health.rules import HealthRules
    from director._jobs.job import ScheduledJob
    from director._runtime.backend import Backend
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._runtime.open_devices import OpenDevices
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot
    from director.events import Hook

logger = logging.getLogger("director")

_GRACE = 1.0  # seconds that running jobs get to end when a Director is closed by an exception
_ABORTING = 5.0  # seconds that an aborted call gets to end
_ENDED, _LEFT = "its process is ended", "its thread can't be stopped and is abandoned"
_UNLOADING = 10.0  # seconds that a slot gets to unload its models


class OpenDirector(Runtime):
    """The `Backend` of a Director; made by `open_director`."""

    def __init__(
        self,
        claim: OpenDevices,
        counts: list[int],
        executor: Executor,
        policy: SchedulingPolicy,
        hooks: tuple[Hook, ...],
        clock: Clock,
        rules: HealthRules,
        shared: str | None,
        loop_lost: Callable[[], None],
    ) -> None:
        slots = None if shared is None else shared_slots(shared)
        super().__init__(claim.devices, counts, executor, policy, hooks, clock, rules, slots, loop_lost)
        self.open_devices = claim
        self.task: asyncio.Task[None] | None = None  # of the Director coroutine
        self.submit = self.job_lifecycle.create_job
        self.call = self.loop_channel.call
        self.assign = self.residency.assign
        self._closing: dict[Slot, Future[None]] = {}  # threads that were told to end, and their last call

    @property
    def is_per_slot(self) -> bool:
        """Whether each slot has replicas of its own."""
        return self.residency.is_per_slot

    @property
    def is_deciding(self) -> bool:
        """Whether this thread is in the midst of a decision."""
        return self.scheduler.is_deciding

    @property
    def any_healthy(self) -> bool:
        """Whether a device gets work."""
        return self.health.registry.any_healthy

    def stats(self) -> Stats:
        """A snapshot."""
        return snapshot(self)

    def start(
        self,
        name: str,
        ended: Callable[[], None],
        joined: Callable[[Device], None],
        left: Callable[[Device, str], None],
    ) -> None:
        """Start the Director coroutine; watch the GPUs, or the fleet."""

        def directed(task: asyncio.Task[None]) -> None:
            """It was ended by `close`, cancelled from outside, or has failed."""
            if task is not self.task:
                return
            ended()
            if task.cancelled():  # with everything else on its loop, as asyncio.run() does at its end
                self.retire()
                return
            error = task.exception()
            assert error is not None
            logger.critical("the Director failed", exc_info=error)
            self.fail(error)

        self.task = create_task(self.loop, self.worker_pool.direct(), name)
        self.task.add_done_callback(directed)
        self.health.start()
        if (fleet := self.open_devices.fleet) is not None:
            fleet.watch(lambda device: self.call(joined, device), lambda *gone: self.call(left, *gone))

    def opened(self) -> None:
        """Tell the hooks that jobs are accepted."""
        self.instrumentation.opened(self.open_devices.devices)

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing waits or runs, for at most `timeout` seconds."""
        if await self.wait_idle(timeout):
            self.instrumentation.drained()

    async def close(self) -> None:
        """Stop and give the devices back; half a close, without waiting, if it is cancelled."""
        try:
            await self.stop()
            await self.open_devices.give_back()
        except asyncio.CancelledError:  # everything on this loop is being cancelled
            self.abandon()

    def finish(self) -> None:
        """Closed: tell the hooks, and give the devices back."""
        self.open_devices.give_back_soon()  # unless that is done
        self.instrumentation.end()
        task, self.task = self.task, None  # a cancelled one keeps the frame in which it was
        if task is not None and not self.loop.is_closed():
            task.cancel()

    async def wait_idle(self, timeout: float | None = None, clock: Clock | None = None) -> bool:
        """Wait until all jobs and workers have ended; False if that takes longer than `timeout` seconds of `clock`.

        The clock is by default the Director's. From now on workers end as soon as they find no job, and no generator
        waits for its reader without limit. Cancellation: stops waiting, nothing else.
        """
        for _, call in self._streams():
            call.channel.stop_waiting()
        for slot in self.scheduler.stop_lingering():
            slot.wake()
        self.worker_pool.notify_here()  # batches that were held are released
        return await self._idle.wait(timeout, clock or self._clock)

    async def stop(self) -> None:
        """Cancel what waits, give running jobs a short grace, unload the models and end the threads."""
        self.scheduler.stop_admission()
        self.job_lifecycle.cancel_waiting()
        for job, _ in self._streams():  # they end at their next value, or at once if they wait for their reader
            self.job_lifecycle.cancel(job, "the Director closed")
        is_calm = await self.wait_idle(
            _GRACE, MonotonicClock()
        )  # a call ends in real time, whatever a test's clock says
        if not is_calm and self._abandon_running():
            await self.wait_idle(_ABORTING, MonotonicClock())
        self.start_backoff.stop()
        self.retire()
        await self._join()
        self.loop_channel.stop(has_no_threads=all(slot.state is SlotState.IDLE for slot in self.scheduler.slots))
        self._stop_timers()
        await self.health.join()
        self._idle.give_up()

    def retire(self) -> None:
        """Start no more workers: cancel what waits, and have each thread unload its models and end."""
        self.scheduler.stop_admission()
        self.job_lifecycle.cancel_waiting()
        for slot in self.scheduler.stop_lingering():
            slot.wake()
        for slot in self.scheduler.slots:
            if slot.thread.started and slot not in self._closing:
                self._closing[slot] = slot.thread.submit(slot.runner.close)
                slot.thread.shutdown(wait=False)

    def abandon(self) -> None:
        """The event loop is ending: as `retire`, and running jobs are cancelled for their callers."""
        self.retire()
        for job in self.scheduler.running():
            self.job_lifecycle.cancel(job, "the Director closed")
        self._stop_timers()
        self.loop_channel.stop(has_no_threads=False)
        self.worker_pool.abandon(is_loop_closed=False)

    def lose_loop(self) -> None:
        """The event loop was closed, so that nothing can be delivered: every job is dropped, and the threads end."""
        drop_jobs(self.scheduler, self.loop_channel, self.job_lifecycle)
        self.retire()
        self._stop_timers()
        self.loop_channel.wakeup.stop(has_no_threads=False)
        self.worker_pool.abandon(is_loop_closed=True)

    def _streams(self) -> list[tuple[ScheduledJob[Any], StreamCall[Any]]]:
        """The streams in slots."""
        running = [(job, job.fn) for job in self.scheduler.running()]
        return [(job, call) for job, call in running if isinstance(call, StreamCall)]

    async def _join(self) -> None:
        """Wait for the threads that are in no call; what takes too long is abandoned, with a warning."""
        idle = {
            asyncio.wrap_future(closing): slot
            for slot, closing in self._closing.items()
            if slot.state is SlotState.IDLE
        }
        if not idle:
            return
        closed, stuck = await asyncio.wait(idle, timeout=_UNLOADING)
        for future in stuck:
            logger.warning("unloading takes more than %g s: %r is abandoned", _UNLOADING, idle[future])
        for future in closed:
            idle[future].thread.join()

    def _stop_timers(self) -> None:
        self.job_lifecycle.stop()
        self.health.stop()
        self.start_backoff.stop()
        self._flush_timer.stop()

    def _abandon_running(self) -> bool:
        """Cancel what runs; True if some calls were aborted, and end soon."""
        aborted = {slot for slot in self.scheduler.slots if slot.runner.abort()}
        for slot in self.scheduler.slots:
            for job in slot.current_jobs():  # cancelled ones too: their calls go on
                fate = _ENDED if slot in aborted else _LEFT
                logger.warning("%r did not end in %g s; %s", job, _GRACE, fate)
        for job in self.scheduler.running():
            self.job_lifecycle.cancel(job, "the Director closed")
        return bool(aborted)


def open_director(
    claim: OpenDevices,
    counts: list[int],
    executor: Executor | FleetExecutor,
    policy: SchedulingPolicy,
    hooks: tuple[Hook, ...],
    clock: Clock,
    rules: HealthRules,
    shared: str | None,
    loop_lost: Callable[[], None],
) -> Backend:
    """Make what runs jobs on the devices of `claim`; see `Runtime` for the arguments."""
    runner_maker = claim.fleet or executor
    assert isinstance(runner_maker, Executor)
    return OpenDirector(claim, counts, runner_maker, policy, hooks, clock, rules, shared, loop_lost)


def drop_jobs(scheduler: Scheduler, loop_channel: LoopChannel, job_lifecycle: JobLifecycle) -> None:
    """Cancel all jobs, and release those whose threads wait for the event loop."""
    jobs = [*scheduler.running(and_waiting=True), *loop_channel.jobs()]
    loop_channel.entries.clear()
    for job in jobs:
        forget_callbacks(job)
        if isinstance(job.fn, StreamCall):
            job.fn.channel.close_reader()
        elif isinstance(job.fn, LocalCall):
            job.fn.release()
        job_lifecycle.end_cancelled(job, "its event loop was closed")
