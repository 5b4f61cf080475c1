"""The Director as a `concurrent.futures.Executor`, for code that takes one."""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import _get_running_loop
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from director._api.function import Function
from director._jobs.calls import LocalCall
from director._jobs.current import call_with_resource
from director._jobs.job import fields
from director._jobs.state import JobState
from director._system.forks import leave_copy
from director._untrusted.objects import is_a, log_error, name_of, set_traceback, strip, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._jobs.job import Job

logger = logging.getLogger("director")
P = ParamSpec("P")
T = TypeVar("T")


class DirectorExecutor(Executor):
    """See `Director.as_executor`. Shutting it down leaves the Director open.

    Args:
        loop: The Director's.
        open_job: Queues a job, from any thread; calls its second argument with the job before.
        is_deciding: Whether this thread is in the midst of a decision of the Director's, which must end first.
        retries: A job that raises may be tried again.
        gives_resource: Functions get the replica or device first.
        count_slots: How many slots may run its calls, from any thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        open_job: Callable[[Callable[[Any], None], Callable[[Job[Any]], None]], Job[None]],
        is_deciding: Callable[[], bool],
        retries: bool,
        gives_resource: bool,
        count_slots: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._open_job = open_job
        self._is_deciding = is_deciding
        self._retries = retries
        self._gives_resource = gives_resource
        self._count_slots = count_slots
        self._lock = threading.RLock()  # guards the two below; a finalizer or a signal handler may submit in the midst
        self._open: set[_Future] = set()
        self._is_shut = False

    @property
    def _max_workers(self) -> int:
        """What libraries read to choose how much to submit: the number of slots that may run its calls."""
        return self._count_slots()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue ``fn(*args, **kwargs)``; never blocks, and waits for room in the queue by itself.

        Raises:
            RuntimeError: The executor was shut down.
            TypeError: `fn` is a `Function`.
            DirectorClosed: The Director isn't open any more.
        """
        if is_a(fn, Function):
            name = name_of(fn._fn)
            raise TypeError(
                f"{name} is a Function, which is awaited on the event loop: give the executor {name}.__wrapped__, or "
                f"from a thread use asyncio.run_coroutine_threadsafe({name}(...), loop)"
            )
        future: _Future = _Future(self._loop, self._is_deciding)
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._open.add(future)
        future.add_done_callback(self._forget)
        try:
            call: Callable[[], T] = lambda: fn(*args, **kwargs)  # noqa: E731 - raises the TypeError
            if callable(fn):
                call = partial(fn, *args, **kwargs)
                if self._gives_resource:
                    call = partial(call_with_resource, fn, *args, **kwargs)
            self._open_job(_Call(future, call, name_of(fn), self._retries), future.attach)
        except BaseException:
            future.job = None  # or the two would refer to each other
            future.cancel()
            raise
        future.note_queued()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; optionally cancel those that wait, and wait for those that are open.

        Raises:
            RuntimeError: It would have to wait on the event loop's own thread, or in a signal handler or finalizer that
                has interrupted the Director.
        """
        with self._lock:
            self._is_shut = True
            pending = list(self._open)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait and (pending := [future for future in pending if not future.done()]):
            _refuse_to_block(self._loop, self._is_deciding, "shutdown(wait=True)")
            _wait(pending)

    def lose_loop(self) -> None:
        """The event loop was closed: calls that have begun go on, the others are not made."""
        with self._lock:
            pending = list(self._open)
        for future in pending:
            if future.claim() or self._retries:
                with suppress(InvalidStateError):
                    future.set_exception(RuntimeError("the event loop of the Director was closed, and it was not"))

    def _forget(self, future: Any) -> None:
        with self._lock:
            self._open.discard(future)


_wait = wait


class _Future(Future[Any]):
    """A future of the executor; cancelling it takes its job out of the queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_deciding: Callable[[], bool]) -> None:
        super().__init__()
        self._loop = loop
        self._is_deciding = is_deciding
        self._claim = threading.Lock()  # acquired once, by the thread that claims the future, and never released
        self.job: Job[None] | None = None
        self._is_queued = False

    def attach(self, job: Job[Any]) -> None:
        """Its job was made, and is queued next: from then on it may begin, and end, at any time."""
        self.job = job
        job.add_done_callback(self.follow)

    def note_queued(self) -> None:
        """The job is queued: it can be cancelled."""
        self._is_queued = True
        if self.cancelled():  # by another thread, before this
            self._cancel_job()

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        if self._is_queued:
            self._cancel_job()
        return True

    def _cancel_job(self) -> None:
        if self.job is not None:
            with suppress(RuntimeError):  # the loop was closed, and the job is over
                self._loop.call_soon_threadsafe(self.job.cancel)

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            _refuse_to_block(self._loop, self._is_deciding, "result()")
        try:
            return super().result(timeout)
        finally:
            del self  # what is raised leads to this frame, and the future holds what is raised

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            _refuse_to_block(self._loop, self._is_deciding, "exception()")
        return super().exception(timeout)

    def claim(self) -> bool:
        """Whether to make the call; if not, notifies the waiters of a cancellation. Both at most once."""
        with self._condition:  # `follow` may set the exception of a job whose time is up just before its call
            if not self._claim.acquire(blocking=False) or (self.done() and not self.cancelled()):
                return False
            return self.set_running_or_notify_cancel()

    @property
    def is_told(self) -> bool:
        """Whether its call was asked to end: the job is over, and `follow` has its outcome, or the Director closes."""
        if self.job is None or self._loop.is_closed():  # nothing would follow
            return False
        job = fields(self.job)
        return job.state not in (JobState.QUEUED, JobState.RUNNING) or job.owner.is_closing

    def follow(self, job: asyncio.Future[None]) -> None:
        """The job is over; if its call never came to settle the future, its end does."""
        error = None if job.cancelled() else job.exception()
        with suppress(InvalidStateError):
            if self.cancelled() or (job.cancelled() and super().cancel()):
                self.claim()
            elif job.cancelled():  # the call goes on, but waiters are released
                self.set_exception(CancelledError("the job was cancelled while it ran"))
            elif error is not None and not self.done():
                self.set_exception(error)


class _Call(LocalCall):
    """The job of one future: runs on a slot's thread and settles the future there, whatever the loop is doing.

    With an error only the loop settles it, if there may be another try or the call ended because it was asked to.
    """

    def __init__(self, future: _Future, call: Callable[[], Any], name: str, retries: bool) -> None:
        self._future = future
        self._call = call
        self._retries = retries
        self.__name__ = name

    def surround(self, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> None:
        """Make the call through `wrap`."""
        self._call = wrap(self._call)

    def __call__(self, _resource: Any) -> None:
        self._settle(self._call)

    def run_locally(self, _device: Device, make: Callable[[Callable[[], Any]], Any]) -> None:
        """On the thread of a slot that makes its calls in another process: `make` makes one."""
        self._settle(partial(make, self._call))

    def given(self) -> Callable[[], Any]:
        """The call for a server process."""
        return self._call

    def settle(self, outcome: Callable[[], Any]) -> None:
        """It has ended there."""
        self._settle(outcome)

    def _settle(self, call: Callable[[], Any]) -> None:
        future = self._future
        if not future.claim() and not (self._retries and future.running()):
            raise asyncio.CancelledError
        try:
            result = call()
            leave_copy()
        except BaseException as error:
            leave_copy(error)
            if self._retries or (type(error) is asyncio.CancelledError and future.is_told):
                raise
            strip(error)
            own = traceback_of(error)
            _answer(future.set_exception, error)
            set_traceback(error, own)  # callbacks that looked at it have left their frames
            del self, future, call, own  # the error's frames lead back to this one, and the future holds the error
            raise
        _answer(future.set_result, result)


def _answer(settle: Callable[[Any], None], outcome: Any) -> None:
    """Settle a future with its callbacks, which the standard library only guards against an `Exception`."""
    try:
        settle(outcome)
    except InvalidStateError:
        pass  # its time was up before
    except BaseException as error:  # noqa: BLE001 - it is no outcome of the call, nor of the slot's thread
        log_error(logger, error, "a callback of a future raised")


def _refuse_to_block(loop: asyncio.AbstractEventLoop, is_deciding: Callable[[], bool], what: str) -> None:
    if _get_running_loop() is loop:
        raise RuntimeError(
            f"{what} on the event loop's own thread would wait forever: the loop starts the workers. "
            "Await asyncio.wrap_future(future), or use loop.run_in_executor"
        )
    if is_deciding():
        raise RuntimeError(
            f"{what} in a signal handler or finalizer that has interrupted the Director would wait forever: "
            "the Director goes on when it returns"
        )
