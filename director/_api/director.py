"""The Director: what an application holds and gives jobs to."""

from __future__ import annotations

import logging
from threading import get_ident
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from director._api.function import Function, FunctionOfItem, extra_of, is_function_of
from director._api.futures_executor import DirectorExecutor
from director._api.lease import Lease
from director._api.lifecycle import DirectorState, Lifecycle
from director._api.map import map_jobs
from director._api.option_names import BATCH, STREAM, take
from director._api.preload import load_model
from director._api.stream import (
    BUFFER,
    ON_SLOW_READER,
    SLOW_READER_TIMEOUT,
    Stream,
    given_settings,
)
from director._api.validation import batch_rule, bound_options, check_call, check_stream
from director._jobs.job import Job, fields
from director._jobs.options import BatchOptions, JobOptions, LeaseOptions, Options, StreamOptions, waits_for_room
from director._jobs.stream_channel import StreamChannel
from director._untrusted.arguments import choice, truth
from director._untrusted.callables import SUSPENDS, suspension_of
from director._untrusted.numbers import FARTHEST
from director._untrusted.objects import is_a, name_of, repr_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Concatenate, TypeVarTuple, Unpack

    from director._device import Device
    from director._jobs.calls import StreamCall
    from director._jobs.model import Model
    from director._jobs.options import BatchRule
    from director._scheduler.explanation import Explanation

    Ts = TypeVarTuple("Ts")

P = ParamSpec("P")
R = TypeVar("R")
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
        devices: `None`: all visible GPUs, or one CPU device with a warning; ``"gpu"``; ``"cpu"``, ``"cpu:4"``;
            ``"simulated:4"``; or a list of `Device`, indices, UUIDs and such strings.
        slots: Jobs at once on each device: a number, or a mapping from device (index, UUID or name) to a number, 1
            where none is given.
        executor: ``"thread"``; ``"process"``; an `Executor`; or what brings devices of its own: `director.ray`.
        max_queue: Most jobs that wait before one that refuses is refused; `None` for no bound.
        when_full: What happens to a job when so many wait. ``"refuse"``: `QueueFull`; ``"wait"``: it is queued all the
            same, at its place in the order of service. `None`: awaited calls (`run`, ``f(x)``) wait, `submit` and
            `stream` refuse. Also an option of each job and function. `map`, `load`, `lease` and `as_executor` wait
            unless their own option says otherwise.
        max_queue_per_tenant: The same for each tenant, or a mapping from tenants to their bounds.
        tenants: Weights of tenants in device time, 1 for those that are not named.
        admission: ``"predict"`` refuses at submission what would miss its deadline.
        ageing: Seconds after which a waiting job goes before all others, whatever its priority; `None`: never.
        memory_limit: What replicas and calls may take of a device: bytes, ``"70GiB"``, ``"90%"``, or a mapping from
            devices. `None`: all that the device has, less some headroom.
        health: When a device gets no more work; see `HealthRules`.
        around: Gives a context manager, such as ``torch.inference_mode``, that is entered on the thread that makes a
            call, once for each call, batch or whole stream, outside of that of the model. What it raises fails the
            call. Not for loads, warm-ups and leases. In child processes too: then it must be picklable.
        hooks: Callables that take one event each; see `director.events`.
        name: For people.
        shared: A name. Processes with the same name take turns on each slot, so that a device never runs more jobs
            than it has slots; each has a replica of its own of every model.
        server: A name. The devices, models, queue and batches are in one server process of this machine for all
            processes that give the same name; the first starts it. Functions and arguments are sent to it by pickle.
        server_linger: Seconds that the server process stays when the last of them has left.
        clock: Replaces the machine's clock, for tests.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range, or an unknown executor.
    """

    @overload
    def submit(self, fn: Function[..., T], /, *args: Any, **options: Unpack[JobOptions]) -> Job[T]: ...

    @overload
    def submit(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> Job[T]: ...

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:  # type: ignore[misc]  # mypy and Unpack in overloads
        """Queue the call ``fn(resource, *args)`` and return its handle at once.

        Args:
            fn: A blocking function; its first argument is the replica of `model`, else the `Device`. Or a `Function` of
                this Director: `options` then count before its own, `None` too.
            args: The remaining arguments; `functools.partial` for keywords.
            options: `model`; `priority` (higher runs sooner); `deadline` (seconds from now by which it must have
                finished; passed while waiting, it never runs); `start_within` (seconds from now by which its first
                attempt must have begun, its model loaded; else it never runs); `timeout` (seconds of running, from the
                call of the function); `tenant` (on whose account it runs, see `Director(tenants=)`); `devices` (those
                it may run on);
                `memory` (bytes or ``"6GiB"`` that the call takes of the device while it runs, on top of the replica);
                `when_full` (``"wait"`` or ``"refuse"``, see `Director`); `retries` (how often it is tried again, on
                another device if there is one, when its worker or device is lost or it raises one of `retry_on`);
                `backoff` (seconds before the second try, doubled for each further one); `name`.

        Raises:
            QueueFull: As many jobs wait as `max_queue` or `max_queue_per_tenant` allow, unless `when_full="wait"`.
            DeadlineUnreachable: It would miss its deadline, with ``admission="predict"``.
            DirectorClosed: The Director isn't open.
            PlacementError: No device can ever run it.
            RuntimeError: Called outside of the Director's event loop.
            TypeError: `fn` makes generators or coroutines; or a wrong option.
            ValueError: `fn` is a `Function` of another Director; or an option out of range.
        """
        if self._state is not _OPEN or get_ident() != self._thread or not self._loop.is_running():
            self._refuse()
        if (type(fn) is not FunctionType or fn.__code__.co_flags & SUSPENDS) and is_function_of(self, fn):
            return fn.with_options(**options).submit(*args)
        if not options:
            return self._backend.submit(fn, args, _PLAIN, self._submit_waits)
        resolved = self._resolve(options)
        return self._backend.submit(fn, args, resolved, waits_for_room(resolved, self._submit_waits))

    @overload
    async def run(self, fn: Function[..., T], /, *args: Any, **options: Unpack[JobOptions]) -> T: ...

    @overload
    async def run(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> T: ...

    async def run(self, fn: Any, /, *args: Any, **options: Any) -> Any:  # type: ignore[misc]  # as above
        """Queue the call ``fn(resource, *args)``, waiting for room if need be, and return its result.

        Arguments and errors as for `submit`, but for `QueueFull`; and whatever `fn` raises.

        Cancellation: cancels the job. If it runs, its thread goes on to the end of the call and only then
        frees the slot; `fn` learns of it through `director.check_cancelled`.
        """
        if self._state is not _OPEN or get_ident() != self._thread or not self._loop.is_running():
            self._refuse()
        if (type(fn) is not FunctionType or fn.__code__.co_flags & SUSPENDS) and is_function_of(self, fn):
            return await fn.with_options(**options)(*args)
        if not options:
            return await self._backend.submit(fn, args, _PLAIN, self._run_waits)
        resolved = self._resolve(options)
        return await self._backend.submit(fn, args, resolved, waits_for_room(resolved, self._run_waits))

    @overload
    def map(
        self,
        fn: FunctionOfItem[Item, T] | Callable[[Any, Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self,
        fn: FunctionOfItem[Item, T] | Callable[[Any, Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[T | BaseException, None]: ...

    def map(
        self,
        fn: Any,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[Any, None]:
        """Run ``fn(resource, item)`` for each item and yield the results.

        Args:
            fn: A blocking function of the resource and one item; or a `Function` of this Director.
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
        if is_function_of(self, fn):
            bound: Any = fn.with_options(**options)
            return bound.map(  # type: ignore[no-any-return]
                items, window=window, ordered=ordered, return_exceptions=return_exceptions
            )
        resolved = self._resolve(options)
        return self._map(lambda item: self._open_job(fn, (item,), resolved), items, window, ordered, return_exceptions)

    @overload
    def stream(self, fn: Function[..., Iterator[T]], /, *args: Any, **options: Unpack[StreamOptions]) -> Stream[T]: ...

    @overload
    def stream(
        self, fn: Callable[[Any, *Ts], Iterator[T]], /, *args: *Ts, **options: Unpack[StreamOptions]
    ) -> Stream[T]: ...

    def stream(  # type: ignore[misc]  # as above
        self,
        fn: Any,
        /,
        *args: Any,
        buffer: int = BUFFER,
        on_slow_reader: Literal["wait", "cancel"] = ON_SLOW_READER,
        slow_reader_timeout: float = SLOW_READER_TIMEOUT,
        **options: Any,
    ) -> Any:
        """Queue the generator ``fn(resource, *args)`` and return its values as they come: ``async for value in ...``.

        The generator runs on the slot's thread and holds the slot until it ends; it never waits for the event loop
        while fewer than `buffer` values are on their way. What it returns in the end is dropped.

        Args:
            fn: A generator function that blocks; its first argument is the replica of `model`, else the `Device`. Or a
                `Function` of this Director.
            args: The remaining arguments.
            buffer: Most values that wait for the reader; then the generator waits.
            on_slow_reader: ``"wait"``: it waits for however long; ``"cancel"``: for at most `slow_reader_timeout`.
            slow_reader_timeout: Seconds in which a reader takes nothing though `buffer` values wait, before the stream
                is cut with `SlowReader`; with ``"wait"`` only while the Director drains. It also limits, in both cases,
                how long the first value may wait for a reader.
            options: As for `submit`; `timeout` includes waiting for the reader; there are `retries` only until the
                first value has come.

        Raises:
            TypeError: `fn` is no generator function.
            AdmissionError, PlacementError, RuntimeError: As `submit`.

        Cancellation: leaving the stream cancels its job; see `Stream`.
        """
        options |= given_settings(buffer, on_slow_reader, slow_reader_timeout)
        if is_a(fn, Function) and is_function_of(self, fn):
            return fn.with_options(**options).stream(*args)
        return self._stream(fn, args, options)

    def _stream(self, fn: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Stream[Any]:
        given = dict(options)
        buffer, on_slow_reader, slow_reader_timeout = check_stream(fn, **take(given, STREAM))
        runtime = self._here(DirectorState.OPEN)
        resolved = self._resolve(given)

        def is_patient() -> bool:
            return on_slow_reader == "wait" and self._state is _OPEN

        def make_channel(wake: Callable[[], None]) -> StreamChannel[Any]:
            return StreamChannel(buffer, slow_reader_timeout, is_patient, self._clock, runtime.call, wake)

        def open_job(call: StreamCall[Any]) -> Job[None]:
            return runtime.submit(call, args, resolved, waits_for_room(resolved, self._submit_waits))

        return Stream(fn, make_channel, open_job, runtime.call)

    @overload
    def function(
        self, fn: Callable[[Any, list[Item]], Sequence[T]], /, *, max_batch_size: int, **options: Unpack[BatchOptions]
    ) -> Function[[Item], T]: ...

    @overload
    def function(
        self, /, *, max_batch_size: int, **options: Unpack[BatchOptions]
    ) -> Callable[[Callable[[Any, list[Item]], Sequence[T]]], Function[[Item], T]]: ...

    @overload
    def function(self, fn: Callable[Concatenate[Any, P], T], /, **options: Unpack[StreamOptions]) -> Function[P, T]: ...

    @overload
    def function(
        self, /, **options: Unpack[StreamOptions]
    ) -> Callable[[Callable[Concatenate[Any, P], T]], Function[P, T]]: ...

    def function(self, fn: Any = None, /, **options: Any) -> Any:
        """Bind options to a function once; a decorator, with or without options, or a call.

        ``await f(item)`` then is ``await director.run(fn, item, **options)``; also `f.submit`, `f.map` and `f.stream`.
        The Director need not be started yet.

        With `max_batch_size` the function is one of batches: ``fn(resource, items)`` gets a list of items and returns
        a list with one result for each, an `Exception` in the place of one that failed; callers give one item and get
        one result. A batch is formed when a slot takes it: at once while a slot is free, bigger while all are busy.

        Args:
            fn: A blocking function; left out for a decorator.
            options: As for `submit` and, for a generator function, `stream`. With `max_batch_size` also: `max_wait`
                (seconds from its oldest item that a batch may wait to become fuller; 0 never waits while a slot is
                free); `batch_key` (a function of an item: only equal keys share a batch); `batch_cost` (a function of
                an item) and `max_batch_cost`; `batch_padding` (the cost of a batch is its largest item's times its
                size, not the sum); `batch_window` (choose items of similar cost from so many full batches);
                `isolate_failures` (a batch that raises is run again item by item).

        Raises:
            TypeError: An unknown option, or one of the wrong type.
            ValueError: An option out of range.
        """
        rule_of, settings = take(options, BATCH), take(options, STREAM)
        bound = bound_options(options)

        def bind(fn: Any) -> Any:
            if not callable(fn):
                raise TypeError(f"director.function() binds options to a callable, not to {repr_of(fn)}")
            if is_a(fn, Function):
                name = name_of(fn._fn)
                raise TypeError(f"{name} is a Function already: {name}.with_options(...) gives it other options")
            if suspension_of(fn) != "generator":  # which `Function.stream` takes
                check_call(fn)
                if settings:
                    raise TypeError(f"{', '.join(settings)}: of streams, and {name_of(fn)} is no generator function")
            return Function(self, fn, bound, batch_rule(bound.get("name") or name_of(fn), rule_of), settings)

        if fn is not None:
            return bind(fn)
        batch_rule("", rule_of)  # raises now if it is invalid
        return bind

    @overload
    def lease(self, *, model: Model[R], **options: Unpack[LeaseOptions]) -> Lease[R]: ...

    @overload
    def lease(self, *, model: None = None, **options: Unpack[LeaseOptions]) -> Lease[Device]: ...

    def lease(self, **options: Any) -> Lease[Any]:
        """Hold one slot for code that offloads by itself: ``async with director.lease() as device:``.

        Args:
            options: `model` (then the replica is given instead of the device), `priority`, `devices`, `name`
                and the others of `submit`; `start_within` (seconds that it waits for its slot, then `JobTimeout`).

        Raises:
            TypeError: `deadline` or `timeout`: the holder decides how long; `start_within` bounds the wait.

        Cancellation: while it waits, gives up its place; inside the block the slot is given back on the way out.
        """
        if options.get("deadline") is not None or options.get("timeout") is not None:
            raise TypeError(
                "a lease takes no deadline or timeout: start_within bounds its wait, and "
                "`async with asyncio.timeout(...)` around it the whole"
            )
        runtime = self._here(DirectorState.OPEN)
        if options.get("model") is not None and runtime.is_per_slot:
            raise TypeError('a lease can\'t hand over a replica that lives in another process: use executor="thread"')
        resolved = self._resolve({"name": "lease", **options})
        return Lease(runtime.loop, runtime.call, lambda fn: self._open_job(fn, (), resolved))

    def as_executor(self, *, resource: bool = False, **options: Unpack[JobOptions]) -> DirectorExecutor:
        """A `concurrent.futures.Executor` whose calls run on the slots. From any thread, while the Director is open.

        Functions are called exactly as given, and may return what they like, generators and coroutines too;
        `director.current_device` and `director.current_replica` tell where they run. Its ``_max_workers``, which some
        libraries read, is the number of slots.

        Waiting for a result *on the event loop's own thread* would wait for ever and raises `RuntimeError` instead. So
        does waiting in a signal handler or a finalizer that has interrupted the Director.

        Args:
            resource: Functions get the replica of `model`, or the `Device`, as their first argument.
            options: As for `submit`.

        Raises:
            DirectorClosed: It isn't open.
            TypeError: `resource` is no bool; or a wrong option.
            ValueError: An option out of range.
            PlacementError: No device can ever run its calls.
        """
        truth("resource", resource)
        runtime, resolver = self._runtime, vars(self).get("_resolver")
        if runtime is None or resolver is None or self._state is not _OPEN or self._loop.is_closed():
            self._refuse()
        resolved = resolver.resolve(options)

        def count_slots() -> int:
            numbers = {slot.number for place in runtime.device_slots if not place.is_gone for slot in place.slots}
            return len(numbers if resolved.allowed is None else numbers & resolved.allowed)

        executor = DirectorExecutor(
            runtime.loop,
            lambda fn, prepare: self._open_job(fn, (), resolved, prepare),
            lambda: runtime.is_deciding,
            resolved.retries > 0,
            resource,
            count_slots,
        )
        self._executors.add(executor)
        return executor

    async def load(self, model: Model[Any], require: Literal["all", "any"] = "all") -> None:
        """Load `model` on every device (or slot) that it may use, and wait until it is resident there.

        Args:
            model: The model.
            require: ``"any"``: return when one device has it, and raise only if none can load it.

        Raises:
            BaseException: What the loader raised on the first device that failed; notes name the devices.
            DeviceLost: A device is in quarantine.
            PlacementError: No device may hold it.
            TypeError: It is no `Model`.
            ValueError: `require` is neither ``"all"`` nor ``"any"``.

        Cancellation: stops waiting; loads that have begun go on.
        """
        runtime = self._here(DirectorState.OPEN)
        is_any_enough = choice("require", require, ("all", "any")) == "any"
        allowed = await runtime.homes(model, self._resolve_model(model))
        allowed = runtime.beside_pins(model, allowed, is_any_enough)
        places, is_apart = runtime.device_slots, runtime.is_per_slot
        await load_model(places, model, allowed, is_apart, is_any_enough, lambda fn, o: self._open_job(fn, (), o))

    async def explain(self, job: Job[Any]) -> Explanation:
        """What a waiting job waits for: a slot, memory, a load, or its place in the order of service; with the numbers.

        Raises:
            DirectorClosed: The Director isn't open.
            TypeError: It is no `Job`.
        """
        runtime = self._here(DirectorState.OPEN, DirectorState.DRAINING)
        if not isinstance(job, Job):
            raise TypeError(f"director.explain() takes a Job, not {repr_of(job)}")
        return await runtime.explain(fields(job))

    async def unload(self, model: Model[Any]) -> None:
        """Unload `model` from every device, as soon as no call uses it there, and wait for that.

        Jobs that need it later load it again. A load that has begun is finished first.

        Raises:
            TypeError: It is no `Model`.

        Cancellation: stops waiting, nothing else.
        """
        runtime = self._here(DirectorState.OPEN)
        self._resolve_model(model)
        await runtime.unload(model)

    def _resolve_model(self, model: Model[Any]) -> frozenset[int] | None:
        """Numbers of the slots that may load a model; `None` for all."""
        if model is None:
            raise TypeError("model must be a Model, not None")
        return self._resolve({"model": model}).allowed

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

    def _open_job(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        options: Options,
        prepare: Callable[[Job[Any]], None] | None = None,
    ) -> Job[T]:
        """Queue a job that waits for room, unless its options say otherwise. From any thread."""
        runtime = self._runtime  # read once: another thread may close it
        if self._state is not DirectorState.OPEN or runtime is None:
            self._refuse()
        return runtime.submit(fn, args, options, waits_for_room(options, True), None, prepare)

    def _resolve(self, options: Any, rule: BatchRule | None = None) -> Options:
        assert self._runtime is not None
        return self._resolver.resolve(options, rule)
