"""The channel of a stream: values on their way from a generator's thread to a reader on the event loop.

Whoever holds `_lock` may change it; the timer belongs to the event loop. The lock is reentrant because `leave` is also
called when a reader is collected as garbage: on any thread and at any moment, so also on one that is inside of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from director._forks import copied, leave_copy
from director.errors import SlowReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._clock import Clock, Timer

T = TypeVar("T")


class StreamChannel(Generic[T]):
    """A bounded queue between one thread, which puts, and the event loop, which takes.

    The thread waits for the loop only while the channel is full. The loop is woken only when it expects a value and the
    first one comes: what follows until it looks is found by the same look.

    Args:
        size: Most values on it.
        limit: Seconds for which it may be full before it is cut, if it is to be cut at all.
        is_patient: Whether a generator may wait longer than that; asked on its thread each time that it has to wait.
        clock: Times the limit.
        call: Has the loop call a function, from any thread.
        wake: Called on the loop when the value has come that the reader `expects`.
    """

    def __init__(
        self,
        size: int,
        limit: float,
        is_patient: Callable[[], bool],
        clock: Clock,
        call: Callable[..., object],
        wake: Callable[[], None],
    ) -> None:
        self._size = size
        self._limit = limit
        self._is_patient = is_patient
        self._clock = clock
        self._call = call
        self._wake = wake
        self._lock = threading.RLock()
        self._bell = threading.Lock()  # a `put` that waits for room acquires it; each wait is ended by one release
        self._bell.acquire()
        self._values: deque[T] = deque()
        self._is_awaited = False  # the reader wants to be woken by the next value
        self._is_blocked = False  # a `put` waits
        self._is_over = False  # nothing more is let on
        self._is_cut = False  # because the reader was slow
        self._full_since = 0.0  # of the `put` that waits, if it is timed
        self._is_timed = False  # a look at `_full_since` is on its way
        self._timer: Timer | None = None
        self.was_crossed = False  # a value has been let on

    # ---- the generator's side: one thread

    def put(self, value: T) -> None:
        """Send `value` to the reader; waits while the channel is full.

        Once it has raised, the generator is to be closed and the error let through: it ends the job.

        Raises:
            asyncio.CancelledError: The reader has left, or the job is over.
            SlowReader: The channel has been full for longer than it may be.
        """
        if copied:
            leave_copy()
        while not self._put(value):
            self._bell.acquire()

    def _put(self, value: T) -> bool:
        with self._lock:
            if self._is_cut:
                raise SlowReader(self._limit, self._size)
            if self._is_over:
                raise asyncio.CancelledError
            if has_room := len(self._values) < self._size:
                self._values.append(value)
                self.was_crossed = True
                call, self._is_awaited = self._wake if self._is_awaited else None, False
            else:
                self._is_blocked = True
                if self._is_over:  # a finalizer has left in the midst of this
                    self._unblock()
                call = None if self._is_patient() else self._start_timing()
        if call is not None:
            self._call(call)
        return has_room

    # ---- the reader's side: the event loop

    @property
    def has_value(self) -> bool:
        """There is something to `take`."""
        return bool(self._values)

    def expect(self) -> bool:
        """False if there is a value; else the next one will `wake` the reader."""
        with self._lock:
            self._is_awaited = not self._values
            return self._is_awaited

    def take(self) -> T:
        """The next value; there must be one."""
        with self._lock:
            if self._is_blocked:
                self._unblock()
            return self._values.popleft()

    def close_reader(self) -> None:
        """Nobody will take anything any more; from any thread."""
        with self._lock:
            self._end()
            values, self._values = self._values, deque()
        del values  # outside of the lock: this may run user code

    # ---- the job's side: the event loop

    def close_writer(self) -> None:
        """The job is over: what is on the channel stays, nothing more is let on."""
        with self._lock:
            self._end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop_waiting(self) -> None:
        """The Director drains, and nobody `is_patient` any more: time a `put` that waits already."""
        with self._lock:
            if not self._is_blocked or self._is_timed:
                return
            self._start_timing()
        self._set_timer()

    def _set_timer(self) -> None:
        """Look when the channel has been full for too long, but never at once: a reader that was woken goes first."""
        left = self._full_since + self._limit - self._clock.time()
        self._timer = self._clock.call_later(max(0.0, left), self._look)

    def _look(self) -> None:
        """Cut the channel if it has been full for too long."""
        with self._lock:
            self._timer = None
            self._is_timed = self._is_blocked
            if not self._is_blocked:
                return
            if self._full_since + self._limit <= self._clock.time():
                self._is_cut = True
                self._end()
                return
        self._set_timer()  # it was not full all the time

    # ---- under the lock

    def _start_timing(self) -> Callable[[], None] | None:
        """Note since when the channel is full; returns what the loop has to do about it, if anything."""
        self._full_since = self._clock.time()
        if self._is_timed:
            return None  # whoever looks next finds the new moment
        self._is_timed = True
        return self._set_timer

    def _end(self) -> None:
        self._is_over = True
        self._unblock()

    def _unblock(self) -> None:
        """Let a `put` that waits go on; in two steps, so that of two that come at once only one releases the bell."""
        was_blocked, self._is_blocked = self._is_blocked, False
        if was_blocked:
            self._bell.release()
