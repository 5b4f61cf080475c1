"""The lifecycle of a Director: start, drain, close, statistics. Owns the state and the runtime."""

from __future__ import annotations

import asyncio
import logging
import math
import warnings
from enum import Enum
from threading import get_ident
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar
from weakref import WeakSet

import anyio

from director._api.resolver import Resolver, newcomer_slots, slot_counts
from director._api.validation import (
    check_clock,
    check_health,
    check_slots,
    check_when_full,
    check_words,
    executor_of,
    policy,
)
from director._devices.health.rules import HealthRules
from director._executors.base import Executor, FleetExecutor
from director._forks import watch
from director._jobs.options import Options
from director._runtime.lifecycle import open_director
from director._runtime.open_devices import OpenDevices
from director._runtime.stats import Stats
from director._sharing import check_shared
from director._untrusted.keys import Interner
from director._untrusted.numbers import MOST_SECONDS, real
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from types import TracebackType
    from typing import Self, TypeVarTuple

    from director._api.futures_executor import DirectorExecutor
    from director._clock import Clock
    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._runtime.backend import Backend
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
        health: HealthRules | None = None,
        hooks: Iterable[Hook] = (),
        name: str | None = None,
        shared: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._slots = check_slots(slots)
        self._run_waits = check_when_full(when_full) != "refuse"
        self._submit_waits = when_full == "wait"
        self._interner = Interner()  # of tenants
        self._policy = policy(max_queue, max_queue_per_tenant, tenants, admission, ageing, self._interner.key_of)
        self.name = check_words(name, hooks := tuple(hooks))
        check_shared(shared)
        self._spec = devices
        self._executor = executor_of(executor)
        if shared is not None and isinstance(self._executor, FleetExecutor):
            raise ValueError("shared= is for the processes of one machine, and this executor's devices are elsewhere")
        self._executors: WeakSet[DirectorExecutor] = WeakSet()
        self._hooks = hooks
        self._rules = HealthRules() if health is None else check_health(health)
        self._shared = shared
        self._clock = check_clock(clock)
        self._devices: tuple[Device, ...] = ()
        self._closing: asyncio.Task[None] | None = None
        self._last_stats = Stats(0, 0, 0, 0, 0, 0, (), ())

    _state = DirectorState.NEW  # these two of the class, for `__del__` when `__init__` has raised
    _runtime: Backend | None = None

    # Set by `start`, and kept here because each submission reads them.
    _backend: Backend  # the same, while it is open
    _loop: asyncio.AbstractEventLoop
    _thread: int
    _resolver: Resolver

    _origin: int | None = None  # the process that opened it, in one that was forked from that

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
            await self._open()
        except BaseException:
            try:
                if self._runtime is not None:
                    await self._close_runtime()
            finally:
                self._state, self._devices = before, ()
            raise

    async def _open(self) -> None:
        claim = await OpenDevices.make(self._spec, self._executor, self._shared)
        try:
            backend = open_director(
                claim,
                slot_counts(self._slots, claim.devices),
                self._executor,
                self._policy,
                self._hooks,
                self._clock,
                self._rules,
                self._shared,
                self._lose_loop,
            )
        except BaseException:
            await claim.give_back()
            raise
        self._devices, self._runtime, self._closing, self._origin = claim.devices, backend, None, None
        self._backend, self._loop, self._thread = backend, backend.loop, get_ident()
        self._resolver = Resolver(backend.device_slots, backend.assign, self._interner)
        watch(self._be_forked)
        backend.start(f"director:{self.name or 'director'}", self._ended, self._join, self._miss)
        self._state = DirectorState.OPEN
        backend.opened()

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

    async def drain(self) -> None:
        """Accept no more jobs and wait until everything accepted is over and every worker has left.

        Cancellation: stops waiting; the Director goes on draining.

        Raises:
            DirectorClosed: It isn't open.
        """
        runtime = self._here(DirectorState.OPEN, DirectorState.DRAINING)
        self._state = DirectorState.DRAINING
        await runtime.drain()

    async def close(self, timeout: float | None = None) -> None:
        """Drain, then unload the models and let the threads end. Does nothing if it isn't open.

        Args:
            timeout: Seconds to drain, 0 or less not to; what waits after that is cancelled, and what still runs a short
                grace later is cancelled for its callers and abandoned, with a warning in the log. `None` for as long
                as it takes.

        Cancellation: cancels what waits and closes at once, like a `timeout` that has passed; then raises.

        Raises:
            RuntimeError: Called outside of the Director's event loop, unless that is closed.
            TypeError: `timeout` is no number.
            ValueError: It is NaN.
        """
        if timeout is not None:
            kind = "seconds as a number or None"
            timeout = max(0, min(MOST_SECONDS, real("timeout", timeout, -math.inf, math.inf, kind)))
        if self._runtime is None:
            return
        if self._loop.is_closed():
            self._lose_loop()
            return
        if not self._is_at_home():
            self._refuse_stranger()
        if self._state is DirectorState.OPEN:
            self._state = DirectorState.DRAINING
        try:
            await self._runtime.drain(timeout)
        except asyncio.CancelledError:
            await self._wind_up()
            raise
        await self._wind_up()

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
    def state(self) -> DirectorState:
        """What it does with new jobs."""
        return self._state

    @property
    def healthy(self) -> bool:
        """It accepts jobs, and a device can run them."""
        return self._state is DirectorState.OPEN and self._runtime is not None and self._runtime.any_healthy

    def stats(self) -> Stats:
        """A snapshot; after the close the last one."""
        return self._last_stats if self._runtime is None else self._runtime.stats()

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
            raise RuntimeError(
                f"this Director was opened in process {self._origin}, from which this one was forked, and its threads "
                "are not here: start it again in this process, or start processes by spawning them"
            )
        if self._state is not DirectorState.OPEN:
            raise DirectorClosed(self._state.value)
        self._refuse_stranger()

    def _refuse_stranger(self) -> NoReturn:
        raise RuntimeError(
            "this Director belongs to another event loop or thread than the one it was called from; "
            "from a thread use director.as_executor() or asyncio.run_coroutine_threadsafe()"
        )

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

    async def _wind_up(self) -> None:
        """Close for good, however often the caller is cancelled: half a close would leave threads behind."""
        cancelled = False
        with anyio.CancelScope(shield=True):  # holds off scopes of anyio; Task.cancel() comes through all the same
            while self._runtime is not None:
                if self._closing is None or self._closing.done():  # done: it was cancelled before it could begin
                    self._closing = self._loop.create_task(self._close_runtime(), name="director:close")
                try:
                    await asyncio.shield(self._closing)
                except asyncio.CancelledError:
                    cancelled = cancelled or not self._closing.cancelled()
        if cancelled:
            raise asyncio.CancelledError

    async def _close_runtime(self) -> None:
        runtime = self._runtime
        assert runtime is not None
        try:
            await runtime.close()
        finally:
            self._drop_runtime(runtime)

    def _be_forked(self, origin: int) -> None:
        """In a process that was forked from ours: nothing of what runs the jobs has come along."""
        if self._runtime is not None:
            _runtimes_of_parent.append(self._runtime)
            self._state, self._runtime, self._origin = DirectorState.CLOSED, None, origin

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
