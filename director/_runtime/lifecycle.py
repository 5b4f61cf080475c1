"""Start and close of one open Director. On the event loop only."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from director._executors.around import surrounding
from director._executors.base import Executor, FleetExecutor
from director._executors.thread import ThreadExecutor, advise
from director._ipc.sharing import shared_slots
from director._jobs.calls import LocalCall, StreamCall
from director._jobs.state import JobState
from director._runtime.devices.footprint_file import footprint_file
from director._runtime.devices.open_devices import OpenDevices
from director._runtime.endings import forget_callbacks
from director._runtime.runtime import Runtime
from director._runtime.stats import Stats, snapshot
from director._runtime.worker_pool import create_task
from director._scheduler.slots import SlotState
from director._scheduler.wakeups import wake_up
from director._system.clock import MonotonicClock
from director._untrusted.objects import log_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._devices.health.rules import HealthRules
    from director._executors.around import Around
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._runtime.backend import Backend
    from director._runtime.devices.footprint_file import FootprintFile
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.explanation import Explanation
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot
    from director._system.clock import Clock
    from director.events import Hook
    from director.hooks import LifespanHook

logger = logging.getLogger("director")

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
        self.submit: Callable[..., ScheduledJob[Any]] = self.job_lifecycle.create_job
        self.call = self.loop_channel.call
        self.assign = self.residency.assign
        self.fitting = self.scheduler.memory.fitting.ever
        self.beside_pins = self.scheduler.memory.fitting.beside_pins
        self.unload = self.unloading.unload
        self._closing: dict[Slot, Future[None]] = {}  # threads that were told to end, and their last call
        self._is_in_grace = False  # `stop` waits for running calls

    def remember(self, file: FootprintFile, sizes: dict[tuple[str, str], int]) -> None:
        """Called before the first job: models took these `sizes` in former runs; what they take now goes to `file`."""
        self._reports.footprints = file
        self.scheduler.memory.remembered = sizes

    def surround(self, around: Around | None) -> None:
        """From any thread: enter `around`, and that of the model, around each call that is queued from now on."""
        self.submit = surrounding(self.job_lifecycle.create_job, around)

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
        """Whether a slot can compute."""
        return self.health.registry.any_healthy

    @property
    def unreachable(self) -> None:
        """`None`: the devices are here."""

    def stats(self) -> Stats:
        """A snapshot."""
        return snapshot(self)

    async def explain(self, job: ScheduledJob[Any]) -> Explanation:
        """What a job waits for."""
        return self.scheduler.explain(job)

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

    def add_hook(self, hook: LifespanHook) -> None:
        """Have the jobs that end from now on recorded by one more hook, which wants no starts of jobs."""
        self.instrumentation.add(hook, self.scheduler)
        self.job_lifecycle.ask_instrumentation()

    def remove_hook(self, hook: LifespanHook) -> None:
        """Have them recorded by it no more."""
        self.instrumentation.remove(hook)
        self.job_lifecycle.ask_instrumentation()

    def opened(self) -> None:
        """Tell the hooks that jobs are accepted."""
        self.instrumentation.opened(self.open_devices.devices)

    async def homes(self, _model: Model[Any], allowed: frozenset[int] | None) -> frozenset[int] | None:
        """All of `allowed`: `assign` has chosen."""
        return allowed

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until all jobs have ended, for at most `timeout` seconds of the Director's clock.

        From now on workers end as soon as they find no job, and no generator waits for its reader without limit.
        """
        for _, call in self._streams():
            call.channel.stop_waiting()
        self._stop_lingering()
        self.worker_pool.notify_here()  # batches that were held are released
        if await self._idle.wait(timeout, self._clock, for_abandoned=False):
            self.instrumentation.drained()

    async def close(self, grace: float) -> None:
        """Stop and give the devices back; half a close, without waiting, if it is cancelled."""
        try:
            await self.stop(grace)
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

    async def stop(self, grace: float) -> None:
        """Fail what waits, ask running calls to end within `grace` seconds, unload the models and end the threads."""
        self._end_waiting()
        self._ask_to_end()
        self._is_in_grace = True
        have_ended = await self._wait_for_calls(grace)
        self._is_in_grace = False
        if not have_ended and self._abort_running(grace):
            await self._wait_for_calls(_ABORTING)
        self.start_backoff.stop()
        self.retire()
        await self._join()
        self.loop_channel.stop(has_no_threads=all(slot.state is SlotState.IDLE for slot in self.scheduler.slots))
        self._stop_timers()
        await self.health.join()
        self._idle.give_up()
        self.unloading.give_up()

    def end_waiting(self, jobs: set[ScheduledJob[Any]]) -> None:
        """Fail those of `jobs` that wait: the application that has submitted them closes."""
        remove = partial(self.scheduler.remove_all, state=JobState.FAILED, of=jobs)
        self.job_lifecycle.endings.withdraw(remove, self.job_lifecycle.end_closed)
        wake_up(self.scheduler.wake_for_waiting())

    def shorten_grace(self, grace: float) -> None:
        """While it closes: running calls get at most `grace` seconds from now."""

        def end() -> None:
            if self._is_in_grace:
                self._idle.give_up()

        MonotonicClock().call_later(grace, end)

    def retire(self) -> None:
        """Start no more workers: fail what waits, and have each thread unload its models and end."""
        self._end_waiting()
        self._stop_lingering()
        for slot in self.scheduler.slots:
            if slot.thread.started and slot not in self._closing:
                self._closing[slot] = slot.thread.submit(slot.runner.close)
                slot.thread.shutdown(wait=False)

    def abandon(self) -> None:
        """The event loop is ending: as `retire`, and running jobs fail for their callers."""
        self.retire()
        self.job_lifecycle.abort_running(0.0)
        self._stop_timers()
        self.loop_channel.stop(has_no_threads=False)
        self.worker_pool.abandon(is_loop_closed=False)

    def lose_loop(self) -> None:
        """The event loop was closed, so that nothing can be delivered: every job is dropped, and the threads end."""
        self.scheduler.stop_admission()  # first: what another thread submitted after the drop could not be ended
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
        self.load_backoff.stop()
        self.memory_monitor.stop()
        self._flush_timer.stop()

    def _end_waiting(self) -> None:
        self.scheduler.stop_admission()
        self.job_lifecycle.end_waiting()

    def _stop_lingering(self) -> None:
        for slot in self.scheduler.stop_lingering():
            slot.wake()

    def _ask_to_end(self) -> None:
        """Have `director.check_cancelled` raise in running calls, streams end at their next value."""
        self.job_lifecycle.is_closing = True
        self._stop_lingering()
        self.scheduler.prefetched.recall()
        for _, call in self._streams():
            call.channel.close_writer()
        for slot in self.scheduler.slots:
            if (job := slot.job) is not None:  # of a batch the first: all of them share its call
                slot.runner.abandon(job)

    async def _wait_for_calls(self, seconds: float) -> bool:
        """Wait until all calls have ended, for at most `seconds`: of real time, as calls take it, with any clock."""
        return await self._idle.wait(seconds, MonotonicClock(), for_abandoned=True)

    def _abort_running(self, grace: float) -> bool:
        """Fail the jobs whose calls have not ended in time; True if some calls were aborted, and end soon."""
        aborted = {slot for slot in self.scheduler.slots if slot.runner.abort()}
        for slot in self.scheduler.slots:
            fate = _ENDED if slot in aborted else _LEFT
            for job in slot.current_jobs():  # ended ones too: their calls go on
                if job.finished_at is None:
                    logger.warning("%r did not end in %g s; %s", job, grace, fate)
        self.job_lifecycle.abort_running(grace)
        return bool(aborted)


async def open_director(
    spec: DeviceSpec,
    counts: Callable[[tuple[Device, ...]], list[int]],
    executor: Executor | FleetExecutor,
    rules: HealthRules,
    shared: str | None,
    policy: SchedulingPolicy,
    hooks: tuple[Hook, ...],
    clock: Clock,
    loop_lost: Callable[[], None],
) -> Backend:
    """Find devices and make what runs jobs on them; see `director.Director` and `Runtime` for the arguments.

    `counts` tells the slots for each device. Cancellation: gives the devices back.
    """
    claim = await OpenDevices.make(spec, executor, shared)
    try:
        numbers = counts(claim.devices)
        file = footprint_file()
        sizes = {} if file is None else await file.read_soon()
        maker = claim.fleet or executor
        assert isinstance(maker, Executor)
        if isinstance(executor, ThreadExecutor):
            advise(sum(slots for device, slots in zip(claim.devices, numbers, strict=True) if device.kind == "cpu"))
        opened = OpenDirector(claim, numbers, maker, policy, hooks, clock, rules, shared, loop_lost)
    except BaseException:
        await claim.give_back()
        raise
    if file is not None:
        opened.remember(file, sizes)
    return opened


def drop_jobs(scheduler: Scheduler, loop_channel: LoopChannel, job_lifecycle: JobLifecycle) -> None:
    """Cancel all jobs, and release those whose threads wait for the event loop."""
    jobs = [*scheduler.running(and_waiting=True), *loop_channel.jobs()]
    loop_channel.entries.clear()
    for job in jobs:
        try:
            _drop(job)
            job_lifecycle.end_cancelled(job, "its event loop was closed")
        except BaseException as error:  # noqa: BLE001 - the others must end too, and no event loop could do it later
            log_error(logger, error, "dropping %r raised", job)


def _drop(job: ScheduledJob[Any]) -> None:
    forget_callbacks(job)
    if isinstance(job.fn, StreamCall):
        job.fn.channel.close_reader()
    elif isinstance(job.fn, LocalCall):
        job.fn.release()
