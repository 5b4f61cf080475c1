"""The lock of the scheduler, safe against finalizers and signal handlers.

The garbage collector and signals run user code between any two bytecodes: a finalizer, the `finally` of a suspended
coroutine, a signal handler. So a thread that holds the lock, in the middle of a decision, may call the Director again.
It must not deadlock, and it must neither see nor change a state that is half written:

- The lock is an `RLock`, and `Exclusive.is_deciding` tells whether this thread was in a decision already. A submission
  or cancellation that finds it set is deferred to the event loop; any other decision raises `RuntimeError`.
- The lock is taken by `with`: a signal handler may raise between `acquire` and `try`, but not before the body of a
  `with`. The two decisions made for each job, `admit` and `next_work`, call `acquire` and `release` instead, which
  costs half as much. `admit` therefore has `acquire` in a `try` of its own: a handler raises in that call, while the
  thread waits and does not have the lock, or as it returns. No call stands between it and the `try` that releases.
- No user code is called under the lock. The clock may be the user's: it is read before the lock is taken.
- An exception during a decision undoes it: `repair` rebuilds the state from what jobs and slots say of themselves,
  before the lock is released.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from director.errors import AdmissionError, DeviceLost

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSALS = (AdmissionError, DeviceLost)
"""What a decision raises by itself, before it has changed anything."""

_TRIES = 100

P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound="Exclusive")


class Exclusive(ABC):
    """An object whose methods decorated with `exclusive`, `dated` or `dated_surely` run one at a time."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time  # never called under the lock
        self._last_time = 0.0  # the last time it returned
        self._lock = threading.RLock()
        self._is_deciding = False  # read and written under the lock only

    @property
    def is_deciding(self) -> bool:
        """Whether this thread is in a decision, which a finalizer or signal handler has interrupted."""
        with self._lock:
            return self._is_deciding

    def undo(self) -> None:
        """Under the lock: `repair`, again as long as signal handlers raise during it."""
        for left in reversed(range(_TRIES)):
            try:
                self.repair()
            except BaseException:
                if not left:
                    raise
            else:
                return

    @abstractmethod
    def repair(self) -> None:
        """Under the lock: rebuild the state after an exception; called again if an exception interrupts it."""

    @abstractmethod
    def wake_again(self) -> None:
        """Without the lock: repeat all wake-ups, which an exception may have prevented."""

    @abstractmethod
    def take_discarded(self) -> object:
        """Under the lock: what has to be dropped without it, because that may run user code."""


def exclusive(step: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """Run a method under the lock, as a whole or not at all."""

    @wraps(step)
    def decide(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with self._lock:
                if self._is_deciding:
                    raise RuntimeError("a signal handler or finalizer that has interrupted the scheduler can't do this")
                try:
                    self._is_deciding = True
                    result = step(self, *args, **kwargs)
                except REFUSALS:
                    raise
                except BaseException:
                    self.undo()
                    raise
                finally:
                    self._is_deciding = False
                discarded = self.take_discarded()
            del discarded
        except REFUSALS:
            raise
        except BaseException:
            self.wake_again()
            raise
        return result

    return decide  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name


def query(step: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """Run a method that changes nothing under the lock, also within a decision.

    What a finalizer or signal handler submits or cancels meanwhile is deferred, as within a decision: it would change
    what the method goes through.
    """

    @wraps(step)
    def ask(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            if self._is_deciding:
                return step(self, *args, **kwargs)
            try:
                self._is_deciding = True
                return step(self, *args, **kwargs)
            finally:
                self._is_deciding = False

    return ask  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name


def dated(step: Callable[Concatenate[Self, float, P], T]) -> Callable[Concatenate[Self, P], T]:
    """As `exclusive`, for a method whose first argument is the time: it is read here, before the lock is taken.

    Raises:
        BaseException: Of the clock; the method was not called.
    """
    decide = exclusive(step)

    @wraps(step)
    def read_and_decide(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        self._last_time = now = self._time()
        return decide(self, now, *args, **kwargs)

    return read_and_decide  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name


def dated_surely(step: Callable[Concatenate[Self, float, P], T]) -> Callable[Concatenate[Self, P], T]:
    """As `dated`, for events that must not be lost: a worker has ended, a timer has expired.

    Raises:
        BaseException: Of the clock. The method was called with the last time that the clock has returned.
    """
    decide = exclusive(step)

    @wraps(step)
    def read_and_decide(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            self._last_time = now = self._time()
        except BaseException:
            decide(self, self._last_time, *args, **kwargs)
            self.wake_again()  # its result, a `WakeCall`, is lost
            raise
        return decide(self, now, *args, **kwargs)

    return read_and_decide  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name
