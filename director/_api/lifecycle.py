"""The lifecycle of a Director: start, drain, close, statistics. Owns the state and the runtime."""

from __future__ import annotations

import asyncio
import logging
import warnings
from enum import Enum
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar
from weakref import WeakSet

import anyio

from director._api.loops import check_loop, refuse_calls, refuse_copy, refuse_stranger
from director._api.resolver import Resolver, newcomer_slots, slot_counts
from director._api.server import ServerArguments
from director._api.validation import (
    check_clock,
    check_health,
    check_slots,
    check_when_full,
    check_words,
    executor_of,
    patience,
    policy,
)
from director._devices.health.rules import HealthRules
from director._executors.around import check_around
from director._executors.base import Executor, FleetExecutor
from director._executors.process.executor import ProcessExecutor
from director._format import names_meant
from director._jobs.options import Options
from director._runtime.lifecycle import open_director
from director._runtime.stats import Stats
from director._system.forks import watch
from director._untrusted.arguments import file_name
from director._untrusted.keys import Interner
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from types import TracebackType
    from typing import Self, TypeVarTuple

    from director._api.futures_executor import DirectorExecutor
    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._executors.around import Around
    from director._jobs.model import Model
    from director._runtime.backend import Backend
    from director._system.clock import Clock
    from director.events import Hook

    Ts = TypeVarTuple("Ts")


class DirectorState(Enum):
    """What a Director does with new jobs: only an `OPEN` one takes them."""

    NEW = "new"
    STARTING = "starting"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"
    FAILED = "failed"


T = TypeVar("T")
Item = TypeVar("Item")
logger = logging.getLogger("director")
_OPEN = DirectorState.OPEN
_PLAIN = Options()


class Lifecycle:
    """Starts and ends a Director; see `director.Director` for the arguments."""

    @names_meant
    def __init__(
        self,
        devices: DeviceSpec = None,
        *,
        slots: int | Mapping[Device | int | str, int] = 1,
        executor: Literal["thread", "process"] | Executor | FleetExecutor = "thread",
        max_queue: int | None = 1024,
        when_full: Literal["wait", "refuse"] | None = None,
        max_queue_per_tenant: int | Mapping[Hashable, int] | None = None,
        tenants: Mapping[Hashable, float] | None = None,
        admission: Literal["predict"] | None = None,
        ageing: float | None = None,
        memory_limit: int | str | Mapping[Device | int | str, int | str] | None = None,
        health: HealthRules | None = None,
        around: Around | None = None,
        hooks: Iterable[Hook] = (),
        name: str | None = None,
        shared: str | None = None,
        server: str | None = None,
        server_linger: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._slots = check_slots(slots)
        self._run_waits = check_when_full(when_full) != "refuse"
        self._submit_waits = when_full == "wait"
        self._interner = Interner()  # of tenants
        self._policy = policy(
            max_queue, max_queue_per_tenant, tenants, admission, ageing, memory_limit, self._interner.key_of
        )
        self.name: str | None = check_words(name, hooks := tuple(hooks))
        self._shared = None if shared is None else file_name("shared", shared)
        self._spec = devices
        self._executor = executor_of(executor)
        if shared is not None and isinstance(self._executor, FleetExecutor):
            raise ValueError("shared= is for the processes of one machine, and this executor's devices are elsewhere")
        self._server = None
        if server is not None:
            self._server = ServerArguments(
                server,
                server_linger,
                shared,
                clock,
                hooks,
                devices=devices,
                slots=self._slots,
                executor=executor,
                max_queue=max_queue,
                max_queue_per_tenant=max_queue_per_tenant,
                tenants=tenants,
                admission=admission,
                ageing=ageing,
                memory_limit=memory_limit,
                health=health,
                around=around,
            )
        self._executors: WeakSet[DirectorExecutor] = WeakSet()
        self._around = around
        check_around(around, isinstance(self._executor, ProcessExecutor))
        self._hooks = hooks
        self._rules = HealthRules() if health is None else check_health(health)
        self._clock = check_clock(clock)

    # Of the class, for `__del__` when `__init__` has raised.
    _state = DirectorState.NEW
    _runtime: Backend | None = None
    _devices: tuple[Device, ...] = ()
    _last_stats = Stats(0, 0, 0, 0, 0, 0, (), ())
    _closing: asyncio.Task[None] | None = None

    # Set by `start`, and kept here because each submission reads them.
    _backend: Backend  # the same, while it is open
    _loop: asyncio.AbstractEventLoop
    _thread: int
    _resolver: Resolver

    _is_unstarted_told = False  # the log has that it was called and never started
    _origin: int | None = None  # the process that opened it, in one that was forked from that

    async def start(self) -> None:
        """Find the devices and accept jobs. A Director that was closed may be started again.

        Raises:
            NoDevices: There is none of the kind asked for.
            DiscoveryError: The devices could not be listed.
            PlacementError: `slots` names a device that isn't there.
            RuntimeError: It has been started already, or the event loop is not asyncio's.
        """
        if self._state not in (DirectorState.NEW, DirectorState.CLOSED):
            raise RuntimeError(f"this Director is {self._state.value}; it can be started when it is new or closed")
        check_loop()
        before, self._state = self._state, DirectorState.STARTING
        try:
            await self._open()
        except BaseException:
            try:
                if self._runtime is not None:
                    await self._close_runtime(0.0)
            finally:
                self._state, self._devices = before, ()
            raise

    async def _open(self) -> None:
        common = self._policy, self._hooks, self._clock, self._lose_loop
        if self._server is not None:
            backend = await self._server.open(*common)
        else:
            counts = partial(slot_counts, self._slots)
            backend = await open_director(self._spec, counts, self._executor, self._rules, self._shared, *common)
        self._devices = tuple(place.device for place in backend.device_slots)
        self._begin(backend)

    def _begin(self, backend: Backend) -> None:
        self._runtime, self._closing, self._origin = backend, None, None
        self._backend, self._loop, self._thread = backend, backend.loop, get_ident()
        self._resolver = Resolver(backend.device_slots, backend.assign, backend.fitting, self._surround, self._interner)
        if self._around is not None:
            backend.surround(self._around)
        watch(self._be_forked)
        backend.start(f"director:{self.name or 'director'}", self._ended, self._join, self._miss)
        self._state = DirectorState.OPEN
        backend.opened()

    def _surround(self, model: Model[Any]) -> None:
        """From any thread: a model has `around`, so jobs must be queued with it."""
        check_around(model.around, isinstance(self._executor, ProcessExecutor))
        if (runtime := self._runtime) is not None:  # else it was closed just now
            runtime.surround(self._around)

    def add_hook(self, hook: Hook) -> None:
        """Add a hook, which gets the events from the next start on.

        Args:
            hook: A callable of one event; see `director.events`.

        Raises:
            TypeError: It can't be called.
            RuntimeError: The Director is running: the hook would miss the events of its jobs.
        """
        check_words(None, (hook,))
        if self._state not in (DirectorState.NEW, DirectorState.CLOSED):
            raise RuntimeError(f"this Director is {self._state.value}; a hook is added before it starts")
        self._hooks += (hook,)

    def _show_server(self, path: str) -> None:
        """Have the server process open the socket of a dashboard, and each that comes after it."""
        assert self._server is not None
        self._server.show(path)

    async def drain(self) -> None:
        """Accept no more jobs and wait until everything accepted has ended.

        A call that goes on although its job has ended (it was cancelled or is out of time) is not waited for.

        Cancellation: stops waiting; the Director goes on draining.

        Raises:
            DirectorClosed: It isn't open.
        """
        runtime = self._here(DirectorState.OPEN, DirectorState.DRAINING)
        self._state = DirectorState.DRAINING
        await runtime.drain()

    async def close(self, timeout: float | None = None, grace: float = 1.0) -> None:
        """Run what was accepted, then end the calls, unload the models and let the threads end.

        1. Nothing new is accepted.
        2. Until `timeout` all that was accepted runs, as `drain`.
        3. Then what waits fails with `DirectorClosed`: nothing of it ran. Running calls are asked to end:
           `director.check_cancelled` raises, and a stream ends at its next value.
        4. For `grace` seconds a call that ends still delivers its result.
        5. The jobs that are left fail with `JobAborted`. Child processes are ended; a thread can't be, and is abandoned
           with a warning in the log.

        A call whose job has ended before (it was cancelled or is out of time) is waited for in step 4 only. Does
        nothing if it isn't open.

        Args:
            timeout: Seconds of step 2, 0 or less for none; `None` for as long as it takes.
            grace: Seconds of step 4, 0 or less for none: of real time, with any clock.

        Cancellation: goes to step 3 at once, and raises when all is closed.

        Raises:
            RuntimeError: Called outside of the Director's event loop, unless that is closed.
            TypeError: `timeout` or `grace` is no number.
            ValueError: It is NaN.
        """
        if timeout is not None:
            timeout = patience("timeout", timeout, "seconds as a number or None")
        grace = patience("grace", grace, "seconds as a number")
        if self._runtime is None:
            return
        if self._loop.is_closed():
            self._lose_loop()
            return
        if not self._is_at_home():
            refuse_stranger()
        if self._state is DirectorState.OPEN:
            self._state = DirectorState.DRAINING
        try:
            await self._runtime.drain(timeout)
        except asyncio.CancelledError:
            await self._wind_up(grace)
            raise
        await self._wind_up(grace)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(None if kind is None else 0.0)

    @property
    def devices(self) -> tuple[Device, ...]:
        """What it runs on; empty before the start."""
        return self._devices

    @property
    def server(self) -> str | None:
        """The name of the server process that has its devices; `None` if this process has them."""
        return None if self._server is None else self._server.name

    @property
    def state(self) -> DirectorState:
        """What it does with new jobs."""
        return self._state

    @property
    def healthy(self) -> bool:
        """It accepts jobs, and some slot can compute.

        False also while every slot is held by a call that goes on although its job has ended: it was cancelled, or is
        out of time.
        """
        runtime = self._runtime  # read once, as below: a `SyncDirector` is asked by other threads
        return self._state is DirectorState.OPEN and runtime is not None and runtime.any_healthy

    def stats(self) -> Stats:
        """A snapshot; after the close the last one."""
        runtime = self._runtime
        return self._last_stats if runtime is None else runtime.stats()

    def __repr__(self) -> str:
        stats = self.stats()
        busy, slots = sum(d.busy for d in stats.devices), sum(d.slots for d in stats.devices)
        return (
            f"<Director{f' {self.name!r}' if self.name else ''} {self._state.value}: {len(self._devices)} devices, "
            f"{busy}/{slots} slots busy, {stats.queued} queued, {stats.running} running, {stats.succeeded} succeeded, "
            f"{stats.failed} failed, {stats.cancelled} cancelled>"
        )

    def __del__(self) -> None:
        if self._runtime is not None:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)

    def _here(self, *states: DirectorState) -> Backend:
        """The runtime, if we are in one of `states` and on its loop."""
        if self._runtime is None or self._state not in states or not self._is_at_home():
            self._refuse()
        return self._runtime

    def _is_at_home(self) -> bool:
        """Whether this is the Director's loop. (`asyncio.get_running_loop` is slower: it reads the process id.)."""
        return get_ident() == self._thread and self._loop.is_running()

    def _refuse(self) -> NoReturn:
        """Say why a call can't be served."""
        if self._origin is not None:
            refuse_copy(self._origin)
        if self._state is not DirectorState.OPEN:
            error = DirectorClosed(self._state.value)
            if self._state is DirectorState.NEW and not self._is_unstarted_told:
                self._is_unstarted_told = True  # once: a web application may get many requests, each answered with 503
                logger.error("%r was called: %s", self, error)
            raise error
        refuse_stranger()

    def _join(self, device: Device) -> None:
        """A device of our fleet has come."""
        if self._runtime is not None and self._state in (_OPEN, DirectorState.DRAINING):
            self._runtime.join(device, newcomer_slots(self._slots, device))
            self._devices += (device,)
            self._resolver.forget()

    def _miss(self, device: Device, reason: str) -> None:
        """A device of our fleet is there no more."""
        if self._runtime is not None:
            self._runtime.leave(device, reason)
            self._devices = tuple(other for other in self._devices if other != device)
            self._resolver.forget()

    async def _wind_up(self, grace: float) -> None:
        """Close for good, however often the caller is cancelled: half a close would leave threads behind."""
        cancelled = False
        if self._closing is not None and self._runtime is not None:  # another caller closes, perhaps more patiently
            self._runtime.shorten_grace(grace)
        with anyio.CancelScope(shield=True):  # holds off scopes of anyio; Task.cancel() comes through all the same
            while self._runtime is not None:
                if self._closing is None or self._closing.done():  # done: it was cancelled before it could begin
                    self._closing = self._loop.create_task(self._close_runtime(grace), name="director:close")
                try:
                    await asyncio.shield(self._closing)
                except asyncio.CancelledError:
                    cancelled = cancelled or not self._closing.cancelled()
        if cancelled:
            raise asyncio.CancelledError

    async def _close_runtime(self, grace: float) -> None:
        runtime = self._runtime
        assert runtime is not None
        try:
            await runtime.close(grace)
        finally:
            self._drop_runtime(runtime)

    def _be_forked(self, origin: int) -> None:
        """In a process that was forked from ours: nothing of what runs the jobs has come along."""
        if self._runtime is not None:
            _runtimes_of_parent.append(self._runtime)
            self._state, self._runtime, self._origin = DirectorState.CLOSED, None, origin
            if get_ident() != self._thread:
                refuse_calls(self._loop, origin)

    def _lose_loop(self) -> None:
        """The event loop was closed while we are open; called on the closing thread, or later by `close`."""
        if (runtime := self._runtime) is None:
            return
        said = f"{self!r} was never closed, though its event loop was: its jobs are dropped"
        runtime.lose_loop()
        for executor in list(self._executors):
            executor.lose_loop()
        self._drop_runtime(runtime)
        warnings.warn(said, ResourceWarning, source=self, stacklevel=1)

    def _drop_runtime(self, runtime: Backend) -> None:
        self._last_stats = runtime.stats()
        self._state, self._runtime = DirectorState.CLOSED, None
        del self._resolver, self._backend  # they remember models, jobs, and what runners have opened
        runtime.finish()

    def _ended(self) -> None:
        """The Director coroutine has ended, and not by our close."""
        if self._state is DirectorState.OPEN:
            self._state = DirectorState.FAILED


_runtimes_of_parent: list[Backend] = []  # in forked copies; kept, because dropping one would notify missing threads
