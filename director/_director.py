"""The Director: what an application holds, starts, gives jobs to and closes."""

from __future__ import annotations

import asyncio
import logging
import warnings
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast, overload

import anyio

from director._core.clock import MonotonicClock
from director._core.crew import Crew
from director._core.slot_thread import SlotThread
from director._core.states import DirectorState
from director._devices.discovery import resolve_devices
from director._executors._base import Executor
from director._executors._thread import ThreadExecutor
from director._faces.executor import DirectorExecutor
from director._faces.function import Function
from director._faces.lease import Lease
from director._faces.load import load_model
from director._faces.map import map_jobs
from director._options import JobOptions, Options, check
from director._resolve import check_bounds, resolve, slot_counts
from director._stats import Stats, snapshot
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping
    from types import TracebackType
    from typing import Self, TypeVarTuple, Unpack

    from director._core.clock import Clock
    from director._core.job import Job
    from director._core.ledger import Ledger
    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._models import Model
    from director.events import Hook

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
Item = TypeVar("Item")
logger = logging.getLogger("director")
_OPEN = DirectorState.OPEN
_PLAIN = Options()


class Director:
    """Runs blocking calls on all devices, each on whichever is free, for one asyncio application.

    Made anywhere; starts in ``async with`` or `start`, and then belongs to that event loop. A job is a call
    ``fn(resource, *args)``: the first argument is the replica of its ``model=``, else the `Device`.

    Args:
        devices: `None`: all visible GPUs, or one CPU stand-in with a warning; ``"gpu"``; ``"cpu"``, ``"cpu:4"``;
            ``"simulated:4"``; or a list of `Device`, indices, UUIDs and such strings.
        slots: Jobs at once on each device: a number, or a mapping from device (index, UUID or name) to a number, 1
            where none is given.
        executor: ``"thread"``, or an `Executor`.
        max_queue: Most jobs that wait; `None` for no bound.
        hooks: Callables that take one event each; see `director.events`.
        name: For people.
        clock: Replaces the machine's clock, for tests.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range, or an unknown executor.
    """

    def __init__(
        self,
        devices: DeviceSpec = None,
        *,
        slots: int | Mapping[Device | int | str, int] = 1,
        executor: Literal["thread"] | Executor = "thread",
        max_queue: int | None = 1024,
        hooks: Iterable[Hook] = (),
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_bounds(slots, max_queue)
        self._spec = devices
        self._slots = slots
        self._executor = _executor(executor)
        self._max_queue = max_queue
        self._hooks = tuple(hooks)
        self._clock = clock or MonotonicClock()
        self._state = DirectorState.NEW
        self._devices: tuple[Device, ...] = ()
        self._crew: Crew | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped: asyncio.Event | None = None
        self._last_stats = Stats(0, 0, 0, 0, 0, 0, ())
        self.name = name

    # Of the crew; set by `start`, and kept here because each submission reads them.
    _ledger: Ledger
    _loop: asyncio.AbstractEventLoop
    _thread: int

    # ---- life

    async def start(self) -> None:
        """Find the devices and accept jobs. A Director that was closed may be started again.

        Raises:
            NoDevices: There is none of the kind asked for.
            DiscoveryError: The devices could not be listed.
            PlacementError: `slots` names a device that isn't there.
            RuntimeError: It has been started already.
        """
        if self._state not in (DirectorState.NEW, DirectorState.CLOSED):
            raise RuntimeError(f"this Director is {self._state.value}; it can be started when it is new or closed")
        before, self._state = self._state, DirectorState.STARTING
        try:
            devices = await self._find_devices()
            crew = Crew(
                devices, slot_counts(self._slots, devices), self._executor, self._max_queue, self._hooks, self._clock
            )
        except BaseException:
            self._state = before
            raise
        self._devices, self._crew, self._stopped = devices, crew, None
        self._ledger, self._loop, self._thread = crew.ledger, crew.loop, get_ident()
        self._state = DirectorState.OPEN
        self._task = crew.loop.create_task(crew.direct(), name=f"director:{self.name or 'director'}")
        self._task.add_done_callback(self._directed)
        crew.chronicle.opened(devices)

    async def drain(self) -> None:
        """Accept no more jobs and wait until everything accepted is over and every worker has left.

        Cancellation: stops waiting; the Director goes on draining.

        Raises:
            DirectorClosed: It isn't open.
        """
        crew = self._here(DirectorState.OPEN, DirectorState.DRAINING)
        self._state = DirectorState.DRAINING
        await crew.rest()
        crew.chronicle.drained()

    async def close(self, timeout: float | None = None) -> None:
        """Drain, then unload the models and let the threads end. Does nothing if it isn't open.

        Args:
            timeout: Seconds to drain; what waits after that is cancelled, and what still runs a short grace later is
                cancelled for its callers and left behind, with a warning in the log. `None` for as long as it takes.

        Cancellation: cancels what waits and closes at once, like a `timeout` that has passed.
        """
        if self._crew is None or self._state in (DirectorState.NEW, DirectorState.CLOSED):
            return
        if self._state is DirectorState.OPEN:
            self._state = DirectorState.DRAINING
        try:
            if await self._crew.rest(timeout):
                self._crew.chronicle.drained()
        finally:
            await self._stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(None if kind is None else 0.0)

    # ---- jobs

    def submit(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> Job[T]:
        """Queue the call ``fn(resource, *args)`` and return its handle at once.

        Args:
            fn: A blocking function; its first argument is the replica of `model`, else the `Device`.
            args: The remaining arguments; `functools.partial` for keywords.
            options: `model`; `priority` (higher runs sooner); `deadline` (seconds from now by which it must have
                finished; passed while waiting, it never runs); `timeout` (seconds of running); `devices` (those it may
                run on); `name`.

        Raises:
            QueueFull: As many jobs wait as `max_queue` allows; `run` would wait.
            DirectorClosed: The Director isn't open.
            PlacementError: No device can ever run it.
            RuntimeError: Called outside of the Director's event loop.
        """
        if self._state is not _OPEN or not self._is_at_home():
            self._refuse()
        return self._ledger.open_job(fn, args, self._resolve(options) if options else _PLAIN, False)

    async def run(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> T:
        """Queue the call ``fn(resource, *args)``, waiting for room if need be, and return its result.

        Arguments and errors as for `submit`, but for `QueueFull`; and whatever `fn` raises.

        Cancellation: cancels the job. If it runs, its thread goes on to the end of the call and only then
        frees the slot; `fn` learns of it through `director.check_cancelled`.
        """
        if self._state is not _OPEN or not self._is_at_home():
            self._refuse()
        return await _Owned(self._ledger.open_job(fn, args, self._resolve(options) if options else _PLAIN, True))

    def map(
        self,
        fn: Callable[[Any, Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[T, None]:
        """Run ``fn(resource, item)`` for each item and yield the results.

        Args:
            fn: A blocking function of the resource and one item.
            items: Sync or async, endless too; taken on the event loop, one at a time as there is room in the window.
            window: Most items that are taken and not yet yielded; by default eight for each slot, at least 32.
            ordered: Yield in the order of the items; else as they are ready.
            return_exceptions: Yield what a job raised instead of raising it.
            options: As for `submit`.

        Raises:
            BaseException: What the first failing job, or `items`, raised; the jobs that are left are cancelled.

        Cancellation: leaving the loop early, or cancelling it, cancels the jobs that are left.
        """
        crew = self._here(DirectorState.OPEN)
        resolved = self._resolve(options)
        size = max(32, 8 * len(crew.dispatch.slots)) if window is None else window
        return map_jobs(
            lambda item: self._open_job(fn, (item,), resolved, True), items, size, ordered, return_exceptions
        )

    @overload
    def function(self, fn: Callable[[Any, *Ts], T], /, **options: Unpack[JobOptions]) -> Function[*Ts, T]: ...

    @overload
    def function(self, **options: Unpack[JobOptions]) -> Callable[[Callable[[Any, *Ts], T]], Function[*Ts, T]]: ...

    def function(self, fn: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]  # mypy and Unpack in overloads
        """Bind options to a function once; a decorator, with or without options, or a call.

        ``await f(item)`` then is ``await director.run(fn, item, **options)``; also `f.submit` and `f.map`. The Director
        need not be started yet.

        Raises:
            TypeError: An unknown option, or one of the wrong type.
            ValueError: An option out of range.
        """
        check(options)
        bound = cast("JobOptions", options)
        return (lambda fn: Function(self, fn, bound)) if fn is None else Function(self, fn, bound)

    def lease(self, **options: Unpack[JobOptions]) -> Lease:
        """Hold one slot for code that offloads by itself: ``async with director.lease() as device:``.

        Args:
            options: `model` (then the replica is given instead of the device), `priority`, `devices`, `name`.

        Raises:
            TypeError: `deadline` or `timeout`: the holder decides how long; `asyncio.timeout` bounds the wait.

        Cancellation: while it waits, gives up its place; inside the block the slot is given back on the way out.
        """
        if options.get("deadline") is not None or options.get("timeout") is not None:
            raise TypeError("a lease takes no deadline or timeout: put `async with asyncio.timeout(...)` around it")
        crew = self._here(DirectorState.OPEN)
        resolved = self._resolve({"name": "lease", **options})
        return Lease(crew.loop, crew.outbox.call, lambda fn: self._open_job(fn, (), resolved, True))

    def as_executor(self, **options: Unpack[JobOptions]) -> DirectorExecutor:
        """A `concurrent.futures.Executor` whose calls run on the slots; usable from any thread.

        Functions are called exactly as given, without the resource argument; `director.current_device()` tells it.
        Waiting for a result *on the event loop's own thread* would wait for ever and raises `RuntimeError` instead.

        Args:
            options: As for `submit`.
        """
        crew = self._here(DirectorState.OPEN)
        resolved = self._resolve(options)
        return DirectorExecutor(crew.loop, crew.outbox.call, lambda fn: self._open_job(fn, (), resolved, True))

    async def load(self, model: Model[Any]) -> None:
        """Load `model` on every device (or slot) that it may use, and wait until it is resident there.

        Raises:
            BaseException: What the loader raised.
            PlacementError: No device may hold it.

        Cancellation: stops waiting; loads that have begun go on.
        """
        crew = self._here(DirectorState.OPEN)
        allowed = self._resolve({"model": model}).allowed
        await load_model(crew.dispatch.places, model, allowed, lambda fn, opts: self._open_job(fn, (), opts, True))

    # ---- facts

    @property
    def devices(self) -> tuple[Device, ...]:
        """What it runs on; empty before the start."""
        return self._devices

    @property
    def state(self) -> DirectorState:
        """What it does with new jobs."""
        return self._state

    @property
    def healthy(self) -> bool:
        """It accepts jobs and can run them."""
        return self._state is DirectorState.OPEN

    def stats(self) -> Stats:
        """A snapshot; after the close the last one."""
        return self._last_stats if self._crew is None else snapshot(self._crew)

    def __repr__(self) -> str:
        stats = self.stats()
        busy, slots = sum(d.busy for d in stats.devices), sum(d.slots for d in stats.devices)
        return (
            f"<Director{f' {self.name!r}' if self.name else ''} {self._state.value}: {len(self._devices)} devices, "
            f"{busy}/{slots} slots busy, {stats.queued} queued, {stats.running} running, {stats.succeeded} succeeded, "
            f"{stats.failed} failed, {stats.cancelled} cancelled>"
        )

    def __del__(self) -> None:
        if self._state in (DirectorState.OPEN, DirectorState.DRAINING):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)

    # ---- within

    def _open_job(self, fn: Callable[..., T], args: tuple[Any, ...], options: Options, patient: bool) -> Job[T]:
        if self._state is not DirectorState.OPEN or self._crew is None:
            raise DirectorClosed(self._state.value)
        return self._crew.ledger.open_job(fn, args, options, patient)

    def _here(self, *states: DirectorState) -> Crew:
        """The crew, if we are in one of `states` and on its loop."""
        if self._crew is None or self._state not in states or not self._is_at_home():
            self._refuse()
        return self._crew

    def _is_at_home(self) -> bool:
        """We are on the Director's loop. asyncio's running loop would tell too, but asks for the process id each time."""
        return get_ident() == self._thread and self._loop.is_running()

    def _refuse(self) -> NoReturn:
        """Say why a call can't be served."""
        if self._state is not DirectorState.OPEN:
            raise DirectorClosed(self._state.value)
        raise RuntimeError(
            "this Director belongs to another event loop or thread than the one it was called from; "
            "from a thread use director.as_executor() or asyncio.run_coroutine_threadsafe()"
        )

    def _resolve(self, options: JobOptions) -> Options:
        assert self._crew is not None
        return resolve(options, self._crew.places, self._crew.residency)

    async def _find_devices(self) -> tuple[Device, ...]:
        """Off the loop, on a thread that nobody joins: NVML may hang when a GPU dies."""
        thread = SlotThread("director:discovery")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, resolve_devices, self._spec)
        finally:
            thread.shutdown(wait=False)

    async def _stop(self) -> None:
        """Wind up whatever is left; shielded, for half a close would leave threads and replicas behind."""
        if self._stopped is not None:  # somebody else is at it
            await self._stopped.wait()
            return
        assert self._crew is not None
        assert self._task is not None
        self._stopped = asyncio.Event()
        with anyio.CancelScope(shield=True):
            try:
                await self._crew.stop()
            finally:
                self._last_stats = snapshot(self._crew)
                self._state, self._crew = DirectorState.CLOSED, None
                self._task.cancel()
                self._stopped.set()

    def _directed(self, task: asyncio.Task[None]) -> None:
        """The Director coroutine has ended: by our close, by its own failure, or because the loop is going away."""
        if self._crew is None or task is not self._task:
            return
        if task.cancelled():
            self._crew.ledger.cancel_waiting()
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)
            self._state = DirectorState.CLOSED
            return
        error = task.exception()
        assert error is not None
        logger.critical("the Director failed", exc_info=error)
        self._state = DirectorState.FAILED
        self._crew.fail(error)


class _Owned(Generic[T]):
    """A job awaited by its only owner: cancelling the awaiting task cancels the job."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[T]) -> None:
        self._job = job

    def __await__(self) -> Generator[Any, None, T]:
        return self._job._await_owned()


def _executor(wanted: Any) -> Executor:
    if wanted == "thread":
        return ThreadExecutor()
    if isinstance(wanted, Executor):
        return wanted
    raise ValueError(f'executor must be "thread" or an Executor, not {wanted!r}')
