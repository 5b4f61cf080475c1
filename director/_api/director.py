"""The Director: what an application holds and gives jobs to."""

from __future__ import annotations

import logging
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from director._api.function import Function, extra_of
from director._api.futures_executor import DirectorExecutor
from director._api.lease import Lease
from director._api.lifecycle import DirectorState, Lifecycle
from director._api.map import map_jobs
from director._api.preload import load_model
from director._api.stream import check_stream, stream_values
from director._api.validation import BATCH, batch_rule, bound_options
from director._jobs.options import BatchOptions, JobOptions, Options, waits_for_room
from director._jobs.stream_channel import StreamChannel
from director._untrusted.numbers import FARTHEST
from director._untrusted.objects import name_of, repr_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
    from typing import TypeVarTuple, Unpack

    from director._jobs.job import Job
    from director._jobs.model import Model
    from director._jobs.options import BatchRule

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
Item = TypeVar("Item")
logger = logging.getLogger("director")
_OPEN = DirectorState.OPEN
_PLAIN = Options()


class Director(Lifecycle):
    """Runs blocking calls on all devices, each on whichever is free, for one asyncio application.

    Made anywhere; starts in ``async with`` or `start`, and then belongs to that event loop. A job is a call
    ``fn(resource, *args)``: the first argument is the replica of its ``model=``, else the `Device`.

    Args:
        devices: `None`: all visible GPUs, or one CPU stand-in with a warning; ``"gpu"``; ``"cpu"``, ``"cpu:4"``;
            ``"simulated:4"``; or a list of `Device`, indices, UUIDs and such strings.
        slots: Jobs at once on each device: a number, or a mapping from device (index, UUID or name) to a number, 1
            where none is given.
        executor: ``"thread"``; ``"process"``; an `Executor`; or what brings devices of its own: `director.ray`.
        max_queue: Most jobs that wait before one that refuses is refused; `None` for no bound.
        when_full: What happens to a job when so many wait. ``"refuse"``: `QueueFull`; ``"wait"``: it is queued all the
            same, at its place in the order of service. `None`: awaited calls (`run`, ``f(x)``) wait, `submit` refuses.
            Also an option of each job and function. `map`, `stream`, `load`, `lease` and `as_executor` wait unless
            their own option says otherwise.
        max_queue_per_tenant: The same for each tenant, or a mapping from tenants to their bounds.
        tenants: Weights of tenants in device time, 1 for those that are not named.
        admission: ``"predict"`` refuses at submission what would miss its deadline.
        ageing: Seconds after which a waiting job goes before all others, whatever its priority; `None`: never.
        health: When a device gets no more work; see `HealthRules`.
        hooks: Callables that take one event each; see `director.events`.
        name: For people.
        shared: A name. Processes with the same name take turns on each slot, so that a device never runs more jobs
            than it has slots; each has a replica of its own of every model.
        clock: Replaces the machine's clock, for tests.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range, or an unknown executor.
    """

    def submit(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> Job[T]:
        """Queue the call ``fn(resource, *args)`` and return its handle at once.

        Args:
            fn: A blocking function; its first argument is the replica of `model`, else the `Device`.
            args: The remaining arguments; `functools.partial` for keywords.
            options: `model`; `priority` (higher runs sooner); `deadline` (seconds from now by which it must have
                finished; passed while waiting, it never runs); `timeout` (seconds of running); `tenant` (on whose
                account it runs, see `Director(tenants=)`); `devices` (those it may run on); `retries` (how often it is
                tried again, on another device if there is one, when its worker or device is lost or it raises one of
                `retry_on`); `backoff` (seconds before the second try, doubled for each further one); `name`.

        Raises:
            QueueFull: As many jobs wait as `max_queue` or `max_queue_per_tenant` allow; `run` would wait.
            DeadlineUnreachable: It would miss its deadline, with ``admission="predict"``.
            DirectorClosed: The Director isn't open.
            PlacementError: No device can ever run it.
            RuntimeError: Called outside of the Director's event loop.
        """
        if self._state is not _OPEN or get_ident() != self._thread or not self._loop.is_running():
            self._refuse()
        if not options:
            return self._backend.submit(fn, args, _PLAIN, self._submit_waits)
        resolved = self._resolve(options)
        return self._backend.submit(fn, args, resolved, waits_for_room(resolved, self._submit_waits))

    async def run(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> T:
        """Queue the call ``fn(resource, *args)``, waiting for room if need be, and return its result.

        Arguments and errors as for `submit`, but for `QueueFull`; and whatever `fn` raises.

        Cancellation: cancels the job. If it runs, its thread goes on to the end of the call and only then
        frees the slot; `fn` learns of it through `director.check_cancelled`.
        """
        if self._state is not _OPEN or get_ident() != self._thread or not self._loop.is_running():
            self._refuse()
        if not options:
            return await self._backend.submit(fn, args, _PLAIN, self._run_waits)
        resolved = self._resolve(options)
        return await self._backend.submit(fn, args, resolved, waits_for_room(resolved, self._run_waits))

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
            window: Most items that are taken and not yet yielded; by default eight for each slot, at least 32, and for
                a function of batches two full batches for each slot.
            ordered: Yield in the order of the items; else as they are ready.
            return_exceptions: Yield what a job raised instead of raising it.
            options: As for `submit`.

        Raises:
            BaseException: What the first failing job, or `items`, raised; the jobs that are left are cancelled.

        Cancellation: leaving the loop early, or cancelling it, cancels the jobs that are left.
        """
        self._here(DirectorState.OPEN)
        resolved = self._resolve(options)
        return self._map(lambda item: self._open_job(fn, (item,), resolved), items, window, ordered, return_exceptions)

    def stream(
        self,
        fn: Callable[[Any, *Ts], Iterator[T]],
        /,
        *args: *Ts,
        buffer: int = 16,
        on_slow_reader: Literal["wait", "cancel"] = "wait",
        slow_reader_timeout: float = 10.0,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[T, None]:
        """Run the generator ``fn(resource, *args)`` on a slot and yield its values as they come.

        The generator runs on the slot's thread and holds the slot until it ends; it never waits for the event loop
        while fewer than `buffer` values are on their way. What it returns in the end is dropped.

        Args:
            fn: A generator function that blocks; its first argument is the replica of `model`, else the `Device`.
            args: The remaining arguments.
            buffer: Most values that wait for the reader; then the generator waits.
            on_slow_reader: ``"wait"``: it waits for however long; ``"cancel"``: for at most `slow_reader_timeout`.
            slow_reader_timeout: Seconds in which a reader takes nothing though `buffer` values wait, before the stream
                is cut with `SlowReader`; with ``"wait"`` only while the Director drains.
            options: As for `submit`; `deadline` counts from the first step of the iterator, which queues the job;
                `timeout` includes waiting for the reader; there are `retries` only until the first value has come.

        Raises:
            TypeError: `fn` is no generator function.
            SlowReader: See above; after the values that came before it.
            BaseException: What the generator raised; after the values that came before it.

        Cancellation: leaving the loop, closing the iterator or cancelling its reader cancels the job: the generator is
        closed on its own thread at the `yield` where it is or comes to next, and then the slot is free.
        """
        buffer, slow_reader_timeout = check_stream(fn, buffer, on_slow_reader, slow_reader_timeout)
        runtime = self._here(DirectorState.OPEN)
        resolved = self._resolve(options)

        def is_patient() -> bool:
            return on_slow_reader == "wait" and self._state is _OPEN

        def make_channel(wake: Callable[[], None]) -> StreamChannel[T]:
            return StreamChannel(buffer, slow_reader_timeout, is_patient, self._clock, runtime.call, wake)

        return stream_values(fn, make_channel, lambda call: self._open_job(call, args, resolved))

    @overload
    def function(
        self, fn: Callable[[Any, list[Item]], Sequence[T]], /, *, max_batch_size: int, **options: Unpack[BatchOptions]
    ) -> Function[Item, T]: ...

    @overload
    def function(
        self, *, max_batch_size: int, **options: Unpack[BatchOptions]
    ) -> Callable[[Callable[[Any, list[Item]], Sequence[T]]], Function[Item, T]]: ...

    @overload
    def function(self, fn: Callable[[Any, *Ts], T], /, **options: Unpack[JobOptions]) -> Function[*Ts, T]: ...

    @overload
    def function(self, **options: Unpack[JobOptions]) -> Callable[[Callable[[Any, *Ts], T]], Function[*Ts, T]]: ...

    def function(self, fn: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]  # mypy and Unpack in overloads
        """Bind options to a function once; a decorator, with or without options, or a call.

        ``await f(item)`` then is ``await director.run(fn, item, **options)``; also `f.submit`, `f.map` and `f.stream`.
        The Director need not be started yet.

        With `max_batch_size` the function is one of batches: ``fn(resource, items)`` gets a list of items and returns
        a list with one result for each, an `Exception` in the place of one that failed; callers give one item and get
        one result. A batch is formed when a slot takes it: at once while a slot is free, bigger while all are busy.

        Args:
            fn: A blocking function; left out for a decorator.
            options: As for `submit`. With `max_batch_size` also: `max_wait` (seconds from its oldest item that a batch
                may wait to become fuller; 0 never waits while a slot is free); `batch_key` (a function of an item: only
                equal keys share a batch); `batch_cost` (a function of an item) and `max_batch_cost`; `batch_padding`
                (the cost of a batch is its largest item's times its size, not the sum); `batch_window` (choose items of
                similar cost from so many full batches); `isolate_failures` (a batch that raises is run again item by
                item).

        Raises:
            TypeError: An unknown option, or one of the wrong type.
            ValueError: An option out of range.
        """
        rule_of = {name: options.pop(name) for name in list(options) if name in BATCH}
        bound = bound_options(options)

        def bind(fn: Any) -> Any:
            if not callable(fn):
                raise TypeError(f"director.function() binds options to a callable, not to {repr_of(fn)}")
            return Function(self, fn, bound, batch_rule(bound.get("name") or name_of(fn), rule_of))

        if fn is not None:
            return bind(fn)
        batch_rule("", rule_of)  # raises now if it is invalid
        return bind

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
        runtime = self._here(DirectorState.OPEN)
        if options.get("model") is not None and runtime.is_per_slot:
            raise TypeError('a lease can\'t hand over a replica that lives in another process: use executor="thread"')
        resolved = self._resolve({"name": "lease", **options})
        return Lease(runtime.loop, runtime.call, lambda fn: self._open_job(fn, (), resolved))

    def as_executor(self, **options: Unpack[JobOptions]) -> DirectorExecutor:
        """A `concurrent.futures.Executor` whose calls run on the slots; usable from any thread.

        Functions are called exactly as given, without the resource argument; `director.current_device()` returns it.
        Waiting for a result *on the event loop's own thread* would wait for ever and raises `RuntimeError` instead. So
        does waiting in a signal handler or a finalizer that has interrupted the Director.

        Args:
            options: As for `submit`.
        """
        runtime = self._here(DirectorState.OPEN)
        resolved = self._resolve(options)
        executor = DirectorExecutor(
            runtime.loop,
            runtime.call,
            lambda fn: self._open_job(fn, (), resolved),
            lambda: runtime.is_deciding,
            resolved.retries > 0,
        )
        self._executors.add(executor)
        return executor

    async def load(self, model: Model[Any]) -> None:
        """Load `model` on every device (or slot) that it may use, and wait until it is resident there.

        Raises:
            BaseException: What the loader raised.
            PlacementError: No device may hold it.

        Cancellation: stops waiting; loads that have begun go on.
        """
        runtime = self._here(DirectorState.OPEN)
        allowed = self._resolve({"model": model}).allowed
        is_apart = runtime.is_per_slot
        await load_model(runtime.device_slots, model, allowed, is_apart, lambda fn, o: self._open_job(fn, (), o))

    def _map(
        self,
        open_job: Callable[[Any], Job[T]],
        items: Iterable[Any] | AsyncIterable[Any],
        window: int | None,
        ordered: bool,
        return_exceptions: bool,
        rule: BatchRule | None = None,
    ) -> AsyncGenerator[T, None]:
        runtime = self._here(DirectorState.OPEN)
        if window is None:  # for each slot eight, or the batch that runs and those that it may choose the next one from
            each = 8 if rule is None else max(8, rule.max_size * (1 + rule.window))
            window = min(FARTHEST - 1, max(32, each * sum(len(place.slots) for place in runtime.device_slots)))
        return map_jobs(open_job, items, window, ordered, return_exceptions, self._clock.time)

    def _open_call(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        options: JobOptions,
        waits: bool,
        rule: BatchRule | None,
    ) -> Job[T]:
        if self._state is not _OPEN or get_ident() != self._thread or not self._loop.is_running():
            self._refuse()
        extra = None if rule is None else extra_of(rule, args)
        resolved = self._resolve(options, rule) if options or rule else _PLAIN
        return self._backend.submit(fn, args, resolved, waits_for_room(resolved, waits), extra)

    def _open_job(self, fn: Callable[..., T], args: tuple[Any, ...], options: Options) -> Job[T]:
        """Queue a job that waits for room, unless its options say otherwise."""
        if self._state is not DirectorState.OPEN or self._runtime is None:
            self._refuse()
        return self._runtime.submit(fn, args, options, waits_for_room(options, True))

    def _resolve(self, options: JobOptions, rule: BatchRule | None = None) -> Options:
        assert self._runtime is not None
        return self._resolver.resolve(options, rule)
