"""The Director coroutine and its pool: a semaphore for each device, workers as tasks, reaped by done-callbacks.

For a job that waits and a slot that is free, the coroutine acquires a permit of the device's `asyncio.Semaphore`, has
the slot's own thread run the worker (as `asyncio.to_thread`, but always on the same thread, as CUDA needs it), and
starts a task that lives as long as the worker. It never awaits that task: the task's done-callback reaps it.

A permit belongs to the thread, not to the task: if the task is cancelled, the permit goes back when the thread is done.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from director._executors.base import NeverStarted
from director._runtime.endings import forget_callbacks
from director._scheduler.wakeups import wake_up
from director._system.threads import DaemonThreadExecutor
from director._untrusted.objects import is_a

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from director._runtime.devices.backoff import StartBackoff
    from director._runtime.idle import IdleWaiters
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots, Slot

_STARTED_AT_ONCE = 16  # then the event loop gets control: a burst of short jobs needs fewer workers


class PoolOwner(Protocol):
    """The runtime, as its pool knows it. On the event loop."""

    def make_worker(self, slot: Slot) -> Callable[[], None]:
        """What the slot's thread has to call: a worker, which returns when it finds no more jobs."""

    def worker_failed(self, slot: Slot, error: BaseException) -> None:
        """A worker has raised outside of any call."""

    def fail(self, cause: BaseException) -> None:
        """The pool itself has failed."""


class WorkerPool:
    """Permits, threads and tasks of the workers of one open Director. On the event loop only, except `notify`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scheduler: Scheduler,
        loop_channel: LoopChannel,
        start_backoff: StartBackoff,
        instrumentation: Instrumentation,
        idle: IdleWaiters,
        owner: PoolOwner,
    ) -> None:
        self.permits: dict[DeviceSlots, asyncio.Semaphore] = {}  # one permit for each slot that has no worker
        self._loop = loop
        self._scheduler = scheduler
        self._loop_channel = loop_channel
        self._start_backoff = start_backoff
        self._instrumentation = instrumentation
        self._idle = idle
        self._owner = owner
        self._has_work = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()
        self._threads: set[asyncio.Future[None]] = set()  # each is done when the thread has returned from its worker
        self._extra_checks: set[asyncio.Task[None]] = set()

    def add(self, place: DeviceSlots) -> None:
        """Make the semaphore of a device and the threads of its slots, which start with their first worker."""
        self.permits[place] = asyncio.Semaphore(len(place.slots))
        for position, slot in enumerate(place.slots):
            slot.thread = DaemonThreadExecutor(f"director:{slot.device.label}/{position}")

    async def direct(self) -> None:
        """The Director coroutine: start workers whenever there is work for them; await none of them."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            await self._start_workers()

    def notify(self) -> None:
        """From any thread: wake the Director coroutine."""
        if asyncio._get_running_loop() is self._loop:
            self.notify_here()
        else:
            self._loop_channel.call(self.notify_here)

    def notify_here(self) -> None:
        """As `notify`, on the event loop."""
        if not self._has_work.is_set():
            self._has_work.set()
            return
        # The coroutine is on its way, unless a signal handler has raised within `set` and the wake-up was lost. So
        # another task checks too; to check twice does no harm.
        check = self._loop.create_task(self._start_workers(), name="director:check")
        self._extra_checks.add(check)
        check.add_done_callback(self._checked)

    def _checked(self, check: asyncio.Task[None]) -> None:
        self._extra_checks.discard(check)
        if not check.cancelled() and (error := check.exception()) is not None:
            self._owner.fail(error)

    async def _start_workers(self) -> None:
        while slots := self._scheduler.pick_slots_to_start(_STARTED_AT_ONCE):
            await self._start_all(iter(slots))
            if len(slots) == _STARTED_AT_ONCE:
                await asyncio.sleep(0)
        wake_up(self._scheduler.wake_parked())

    async def _start_all(self, slots: Iterator[Slot]) -> None:
        try:
            for slot in slots:
                await self._start(slot)
        except BaseException:
            for slot in slots:  # the rest
                self._scheduler.mark_idle(slot)
            raise

    async def _start(self, slot: Slot) -> None:
        permits = self.permits[slot.place]
        await permits.acquire()  # never waits: there is a free permit for each idle slot
        try:
            thread = self._loop.run_in_executor(slot.thread, self._owner.make_worker(slot))
        except Exception as error:  # noqa: BLE001 - usually the system has no thread or descriptor left
            permits.release()
            self._start_backoff.failed(slot, error)
            return
        except BaseException:
            permits.release()
            self._scheduler.mark_idle(slot)
            raise
        self._start_backoff.thread_started(slot)
        self._threads.add(thread)
        try:
            worker = create_task(self._loop, _live(thread), f"director:{slot.device.label}")
        except BaseException:
            thread.add_done_callback(partial(self._release_permit, slot))
            raise
        self._workers.add(worker)
        worker.add_done_callback(partial(self._reap, slot, thread))
        self._instrumentation.worker_started(slot)

    def _reap(self, slot: Slot, thread: asyncio.Future[None], worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled():
            worker.exception()  # of the thread, handled by `_release_permit`
        if thread.done():
            self._release_permit(slot, thread)
        else:  # the task was cancelled: the permit is released when the thread has returned
            thread.add_done_callback(partial(self._release_permit, slot))

    def _release_permit(self, slot: Slot, thread: asyncio.Future[None]) -> None:
        self._threads.discard(thread)
        if thread.cancelled():
            return  # abandoned with its event loop
        error = thread.exception()
        try:
            if error is not None and not is_a(error, NeverStarted):
                self._owner.worker_failed(slot, error)
        finally:
            self.permits[slot.place].release()
            if is_a(error, NeverStarted):
                self._start_backoff.failed(slot, error)
            else:
                wake_up(self._scheduler.mark_idle(slot))
        self._instrumentation.worker_stopped(slot)
        self._idle.check()

    def abandon(self, is_loop_closed: bool) -> None:
        """The event loop ends, or is closed already: wait for no thread any more."""
        for thread in self._threads:
            if is_loop_closed:
                forget_callbacks(thread)
            thread.cancel()


async def _live(thread: asyncio.Future[None]) -> None:
    """The task of a worker. Shielded: cancelling it does not end the thread."""
    await asyncio.shield(thread)


def create_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Make a task without asyncio's warning if it is destroyed pending: the Director warns itself, once."""
    try:
        task = loop.create_task(work, name=name)
    except BaseException:  # raised by a task factory
        work.close()
        raise
    with suppress(AttributeError):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # of asyncio's own tasks
    return task
