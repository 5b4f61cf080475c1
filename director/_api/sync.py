"""The Director for programs without an event loop: scripts, Flask, Django, notebooks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, TypeVarTuple, Unpack, overload

from director._api.director import Director
from director._api.function import is_function_of
from director._api.lifecycle import DirectorState
from director._system.threads import start_daemon
from director._untrusted.numbers import whole
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from director._api.stream import Stream
    from director._device import Device
    from director._jobs.job import Job
    from director._jobs.model import Model
    from director._jobs.options import JobOptions, StreamOptions
    from director._runtime.stats import Stats

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Item = TypeVar("Item")
_END: Any = object()


class _NotOpen(DirectorClosed, RuntimeError):
    """A call that needs the event loop of a `SyncDirector` that has none."""

    def __str__(self) -> str:
        return f"this SyncDirector is {self.state}: use `with SyncDirector() as director:`, or start()"


class SyncDirector:
    """A `Director` whose event loop runs on a thread of its own; call it from any thread but that one.

    Made anywhere; starts in ``with`` or `start`. Leaving the block normally waits for all jobs; by an exception it
    closes at once.

    A forked process can't use the one of its parent, for threads don't survive a fork: it is refused there with what
    to do. Servers that fork (gunicorn, uWSGI, Celery) open one in each worker process, after the fork.

    Args:
        devices: As for `Director`.
        options: The others of `Director`.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range, or an unknown executor.
    """

    def __init__(self, devices: Any = None, **options: Any) -> None:
        self._director = Director(devices, **options)
        # Both are reentrant: a signal handler may call anything here within anything.
        self._lock = threading.RLock()  # of start and close
        self._crossing = threading.RLock()  # guards `_loop`, and `_calls` but for those that have ended
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: set[Future[Any]] = set()  # on the event loop
        self._thread: threading.Thread | None = None
        self._process = 0  # that has started it

    def start(self) -> Self:
        """Start the event loop's thread and open the Director; blocks until the devices are known.

        Raises:
            NoDevices: There are none.
            DiscoveryError: The devices can't be listed.
            RuntimeError: It is open, or closing.
        """
        with self._lock:
            if self._loop is not None:
                self._check_process()
                raise RuntimeError("this SyncDirector is open already")
            loop = asyncio.new_event_loop()
            try:
                thread = start_daemon(_run_loop, (loop,), "director:loop")
            except BaseException:
                loop.close()
                raise
            self._loop, self._thread, self._process = loop, thread, os.getpid()
            try:
                self._wait_for(self._director.start())
            except BaseException:
                self._stop()
                raise
        return self

    def close(self, timeout: float | None = None, grace: float = 1.0) -> None:
        """Accept nothing new, wait for the jobs, and end the event loop's thread. Does nothing if it isn't open.

        Args:
            timeout: Seconds after which what waits fails with `DirectorClosed` and running calls are asked to end;
                `None` waits for all jobs.
            grace: Seconds that these calls then get, before their jobs fail with `JobAborted`; see `Director.close`.
        """
        self._close(lambda: self._director.close(timeout, grace))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(lambda: self._director.__aexit__(kind, error, traceback))

    def run(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> T:
        """Queue the call ``fn(resource, *args)``, wait for its turn, and return its result.

        Arguments and errors as for `Director.run`. A `KeyboardInterrupt` while it waits cancels the job.
        """
        return self._wait_for(self._director.run(fn, *args, **options))

    def submit(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, **options: Unpack[JobOptions]) -> Future[T]:
        """Queue the call ``fn(resource, *args)`` and return its future as soon as the event loop has accepted it.

        Cancelling the future cancels the job; as for `Job.cancel`, a call that runs goes on, and is over for its
        caller at once.

        Raises:
            QueueFull, DeadlineUnreachable, DirectorClosed, PlacementError: As for `Director.submit`.
        """
        return self._wait_for(_called(lambda: _JobFuture(self._director.submit(fn, *args, **options))))

    @overload
    def map(
        self,
        fn: Callable[[Any, Item], T],
        items: Iterable[Item],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        **options: Unpack[JobOptions],
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[Any, Item], T],
        items: Iterable[Item],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool,
        **options: Unpack[JobOptions],
    ) -> Iterator[T | BaseException]: ...

    def map(
        self,
        fn: Callable[[Any, Any], Any],
        items: Iterable[Any],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **options: Unpack[JobOptions],
    ) -> Iterator[Any]:
        """Run ``fn(resource, item)`` for each item and yield the results.

        Arguments and errors as for `Director.map`. The items are taken on the thread that iterates, each when there is
        room in the window; endless ones too. Leaving the loop early cancels the jobs that are left.
        """
        self._open_loop()
        is_function_of(self._director, fn)
        size = whole("window", window, 1) if window is not None else max(32, 8 * self._slots())
        return self._map(fn, iter(items), size, ordered, return_exceptions, options)

    def stream(
        self, fn: Callable[[Any, *Ts], Iterator[T]], /, *args: *Ts, **options: Unpack[StreamOptions]
    ) -> Iterator[T]:
        """Queue the generator ``fn(resource, *args)`` and return an iterator of its values as they come.

        Arguments and errors as for `Director.stream`. Leaving the loop early closes the generator on its own thread.
        """
        self._open_loop()
        values = self._wait_for(_called(lambda: self._director.stream(fn, *args, **options)))
        return self._stream(values)

    def load(self, model: Model[Any], require: Literal["all", "any"] = "all") -> None:
        """Load `model` on all devices that it may be loaded on; see `Director.load`."""
        self._wait_for(self._director.load(model, require))

    def stats(self) -> Stats:
        """A snapshot; see `Director.stats`."""
        with suppress(RuntimeError):  # it is closed, or this thread must not wait
            return self._wait_for(_called(self._director.stats))
        return self._director.stats()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices, once it has started."""
        return self._director.devices

    @property
    def state(self) -> DirectorState:
        """Where it is in its life."""
        return self._director.state

    @property
    def healthy(self) -> bool:
        """It accepts jobs, and some slot can compute.

        False also while every slot is held by a call that goes on although its job has ended: it was cancelled, or is
        out of time.
        """
        return self._director.healthy

    def __repr__(self) -> str:
        return f"<Sync{repr(self._director).removeprefix('<')}"

    # Crossing to the event loop.

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this SyncDirector was opened in process {self._process}, from which this one was forked, and its "
                "threads are not here: open one in each process, after the fork (gunicorn: in post_fork)"
            )

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            raise _NotOpen(self._director.state.value)
        self._check_process()
        if threading.current_thread() is self._thread:
            raise RuntimeError("a SyncDirector can't be called from its own event loop's thread: it would wait forever")
        if (runtime := self._director._runtime) is not None and runtime.is_deciding:
            raise RuntimeError(
                "a SyncDirector can't be called in a signal handler or finalizer that has interrupted it: it would "
                "wait forever, because the Director goes on when that returns"
            )
        return loop

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the event loop, in the caller's context; returns the future of what it returns."""
        with self._crossing:  # the loop is not stopped before it has run what it was given
            try:
                loop = self._open_loop()
            except BaseException:
                work.close()
                raise
            future = asyncio.run_coroutine_threadsafe(work, loop)
            self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """As `_begin`, and wait for what it returns."""
        future = self._begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of a signal handler: the coroutine's own error has ended it
            raise
        finally:
            del future  # the traceback of what is raised leads to this frame

    def _close(self, close: Callable[[], Coroutine[Any, Any, object]]) -> None:
        with self._lock:
            if self._loop is None:
                return
            self._open_loop()
            try:
                self._wait_for(close())
            finally:
                if self._director.state is DirectorState.CLOSED:
                    self._stop()

    def _stop(self) -> None:
        """The Director has closed: end the loop when all calls have ended, and be told so by those that come later."""
        with self._crossing:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:  # a signal handler has closed it meanwhile
            return
        try:
            wait(list(self._calls))
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _slots(self) -> int:
        return sum(device.slots for device in self._director.stats().devices)

    def _map(
        self,
        fn: Callable[[Any, Any], T],
        items: Iterator[Any],
        size: int,
        ordered: bool,
        return_exceptions: bool,
        options: JobOptions,
    ) -> Iterator[T]:
        window = _Window[T](ordered)
        is_over = False
        try:
            while True:
                while not is_over and len(window) < size:
                    try:
                        item = next(items)
                    except StopIteration:
                        is_over = True
                    else:
                        window.add(self._run_soon(fn, item, options))
                if not len(window):
                    return
                yield window.next_result(return_exceptions)
        finally:
            window.cancel()

    def _run_soon(self, fn: Callable[[Any, Any], T], item: Any, options: JobOptions) -> Future[T]:
        """As `run`, without waiting for the result."""
        return self._begin(self._director.run(fn, item, **options))

    def _stream(self, values: Stream[T]) -> Iterator[T]:
        try:
            while (value := self._wait_for(_next(values))) is not _END:
                yield value
        finally:
            values._drop()  # without a wait: the collector may close this generator, on any thread, within anything


class _JobFuture(Future[T]):
    """The future of a job; cancelling it cancels the job. Made on the event loop: it follows the job from the start."""

    def __init__(self, job: Job[T]) -> None:
        super().__init__()
        self._job = job
        job.add_done_callback(self._follow)

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        with suppress(RuntimeError):  # the loop was closed meanwhile, and the job is over
            self._job.get_loop().call_soon_threadsafe(self._job.cancel)
        return True

    def _follow(self, job: asyncio.Future[T]) -> None:
        """On the event loop: the job is over."""
        if job.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        error = job.exception()  # and so asyncio does not complain of it
        if not self.set_running_or_notify_cancel():
            return
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(job.result())


class _Window(Generic[T]):
    """Futures whose results were not yet yielded."""

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._futures: deque[Future[T]] = deque()
        self._done: SimpleQueue[Future[T]] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[T]) -> None:
        """One more."""
        self._futures.append(future)
        if not self._ordered:
            future.add_done_callback(self._done.put)

    def next_result(self, return_exceptions: bool) -> Any:
        """Wait for the result that comes next, and take it out."""
        future = self._futures[0] if self._ordered else self._done.get()
        try:
            result = future.result()
        except Exception as error:
            if not return_exceptions:
                raise
            result = error  # type: ignore[assignment]  # as the caller has asked
        self._futures.remove(future)
        return result

    def cancel(self) -> None:
        """Cancel those that are left."""
        for future in self._futures:
            future.cancel()


async def _called(call: Callable[[], T]) -> T:
    """Call it on the event loop."""
    return call()


async def _next(values: Stream[T]) -> T:
    return await anext(values, _END)  # which never leaves this file


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
