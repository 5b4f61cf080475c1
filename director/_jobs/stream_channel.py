"""The channel of a stream, from the generator's thread to a reader on the event loop.

`_lock` guards all fields but the timer, which belongs to the event loop. The lock is reentrant because `close_reader`
is also called when a reader is garbage-collected: at any time, on any thread, which may hold the lock.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from director._system.forks import copied, leave_copy
from director.errors import SlowReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._system.clock import Clock, Timer

T = TypeVar("T")


class StreamChannel(Generic[T]):
    """A bounded queue between one thread, which puts, and the event loop, which takes.

    The thread waits only while the channel is full. The event loop is woken only for the first value after `expect`;
    the reader then takes all that have arrived.

    Args:
        size: Most values in the channel.
        limit: Seconds for which it may be full before it is cut, unless `is_patient`; and, in any case, for which its
            first value may be left in it.
        is_patient: Whether the generator may wait longer than that; called on its thread each time that it has to wait.
        clock: Measures `limit`.
        call: Thread-safe; has the event loop call a function.
        wake: Called on the event loop when the value after `expect` has arrived.
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
        self._room_signal = threading.Lock()  # acquired by a `put` that waits for room, once for each release
        self._room_signal.acquire()
        self._values: deque[T] = deque()
        self._is_awaited = False  # the reader wants to be woken by the next value
        self._is_blocked = False  # a `put` waits
        self._is_over = False  # no more values are accepted
        self._cut: SlowReader | None = None  # the reader was too slow
        self._late_since: float | None = None  # since when the reader has to take a value, while that is timed
        self._is_timed = False  # `_set_timer` was called, or will be
        self._timer: Timer | None = None
        self.was_crossed = False  # a value was accepted
        self.on_take: Callable[[], None] | None = None
        """Called on the event loop after each `take`; for a writer there that must not wait: it keeps to `size`."""
        self.on_cut: Callable[[SlowReader], None] | None = None
        """Called on the event loop when the channel is cut; for the same writer, which may put nothing more."""

    def settings(self) -> tuple[int, float, bool]:
        """Most values in it, the limit in seconds, and whether the generator may wait longer than that."""
        return self._size, self._limit, self._is_patient()

    # ---- the generator's side: one thread

    def put(self, value: T) -> None:
        """Send `value` to the reader; waits while the channel is full.

        After an exception the generator has to be closed, and the exception passed on: it ends the job.

        Raises:
            asyncio.CancelledError: The reader has left, or the job has ended.
            SlowReader: The channel has been full, or its first value left in it, for longer than it may be.
        """
        if copied:
            leave_copy()
        while not self._put(value):
            self._room_signal.acquire()

    def _put(self, value: T) -> bool:
        with self._lock:
            if self._cut is not None:
                raise self._cut
            if self._is_over:
                raise asyncio.CancelledError
            call: Callable[[], None] | None = None
            if has_room := self.on_take is not None or len(self._values) < self._size:
                self._values.append(value)
                is_first, self.was_crossed = not self.was_crossed, True
                if self._is_awaited:
                    call, self._is_awaited = self._wake, False
                elif is_first:
                    call = self._start_timing()
            else:
                self._is_blocked = True
                if self._is_over:  # a finalizer has called `close_reader` within this block
                    self._unblock()
                call = None if self._is_patient() else self._start_timing()
        if call is not None:
            self._call(call)
        return has_room

    # ---- the reader's side: the event loop

    @property
    def has_value(self) -> bool:
        """Whether there is a value to `take`."""
        return bool(self._values)

    def expect(self) -> bool:
        """False if there is a value; else the next one will `wake` the reader."""
        with self._lock:
            self._is_awaited = not self._values
            return self._is_awaited

    def take(self) -> T:
        """The next value; there must be one."""
        with self._lock:
            self._late_since = None
            if self._is_blocked:
                self._unblock()
            value = self._values.popleft()
        if self.on_take is not None:
            self.on_take()
        return value

    def close_reader(self) -> None:
        """The reader has left: drop all values. From any thread."""
        with self._lock:
            self._end()
            values, self._values = self._values, deque()
        del values  # without the lock: this may run user code

    # ---- the job's side: the event loop

    def close_writer(self) -> None:
        """The job has ended: the values in the channel stay, no more are accepted."""
        with self._lock:
            self._end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop_waiting(self) -> None:
        """The Director drains, and `is_patient` is False from now on: time a `put` that waits already."""
        with self._lock:
            call = self._start_timing() if self._is_blocked else None
        if call is not None:
            call()

    def _set_timer(self) -> None:
        """Check when the reader will have been late for too long, never at once: a woken reader goes first."""
        since = self._late_since
        left = self._limit if since is None else since + self._limit - self._clock.time()
        self._timer = self._clock.call_later(max(0.0, left), self._check)

    def _check(self) -> None:
        """Cut the channel if its reader has been late for too long."""
        with self._lock:
            self._timer = None
            since = self._late_since
            self._is_timed = since is not None
            if since is None:
                return
            if since + self._limit <= self._clock.time():
                cut = self._cut = SlowReader(self._limit, len(self._values))
                self._end()
            else:
                cut = None
        if cut is None:
            self._set_timer()  # it has taken values meanwhile
        elif self.on_cut is not None:
            self.on_cut(cut)

    # ---- under the lock

    def _start_timing(self) -> Callable[[], None] | None:
        """Note since when the reader is late; returns what the event loop has to call, if anything."""
        if self._late_since is None:
            self._late_since = self._clock.time()
        if self._is_timed:
            return None  # the next check reads the new time
        self._is_timed = True
        return self._set_timer

    def _end(self) -> None:
        self._is_over = True
        self._late_since = None
        self._unblock()

    def _unblock(self) -> None:
        """Wake a waiting `put`. The flag is cleared first, so that only one of two callers releases the lock."""
        was_blocked, self._is_blocked = self._is_blocked, False
        if was_blocked:
            self._room_signal.release()
