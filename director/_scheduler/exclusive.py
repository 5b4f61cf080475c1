"""The lock of the scheduler, which a thread may come to while it holds it.

The collector and signals run user code between any two steps of a thread: a finalizer, the `finally` of a forgotten
coroutine, a handler. So a thread in the midst of a decision may call the Director. It must not wait for itself, and it
must not see or change what is half decided:

- The lock is an `RLock`, and `Exclusive.is_deciding` tells a thread that has got in whether it was inside before. A
  submission and a cancellation that find it set are noted, and the loop carries them out; the other decisions, which
  no public call makes on such a way, are refused.
- The lock is entered by `with`, as a rule: a handler may raise between `acquire` and `try`, and not before the body of
  a `with`. The two steps that each job makes, `admit` and `take`, call `acquire` and `release` instead, which costs
  half as much. Their `acquire` is itself within a `try`, for a handler raises in that call (while the thread waits, and
  then it does not have the lock) or as the call returns; between it and the `try` that releases there is no other call.
- No user code runs under the lock on purpose. The clock may be the user's: it is read before the lock is taken.
- An exception that comes in the midst of a decision undoes it: `repair` makes the state anew from what jobs and slots
  say of themselves, before the lock is free.
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
    """An object whose methods marked `alone`, `dated` or `dated_surely` run one at a time.

    Args:
        time: The Director's clock.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time  # never called under the lock
        self._moment = 0.0  # what it has told last
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._is_deciding = False  # read and written by the thread that holds the lock alone

    @property
    def is_deciding(self) -> bool:
        """Whether this thread is in the midst of a decision, which a finalizer or a handler has interrupted."""
        with self._lock:
            return self._is_deciding

    def undo(self) -> None:
        """Under the lock: `repair`, however often a handler raises meanwhile."""
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
        """Under the lock: undo what an exception has cut off; does so from the start if it is cut off itself."""

    @abstractmethod
    def wake_again(self) -> None:
        """Without the lock: call whoever was to be called, for an exception may have come before that."""

    @abstractmethod
    def take_discarded(self) -> object:
        """Under the lock: what is to be let go of without it, for that may run user code."""


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
                spent = self.take_discarded()
            del spent
        except REFUSALS:
            raise
        except BaseException:
            self.wake_again()
            raise
        return result

    return decide  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name


def dated(step: Callable[Concatenate[Self, float, P], T]) -> Callable[Concatenate[Self, P], T]:
    """As `alone`, for a method whose first argument is the time: it is read here, before the lock is taken.

    Raises:
        BaseException: Of the clock, and nothing was decided.
    """
    decide = exclusive(step)

    @wraps(step)
    def read_and_decide(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        self._moment = now = self._time()
        return decide(self, now, *args, **kwargs)

    return read_and_decide  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name


def dated_surely(step: Callable[Concatenate[Self, float, P], T]) -> Callable[Concatenate[Self, P], T]:
    """As `dated`, for what has happened already and must be known: a worker has left, a timer has rung.

    Raises:
        BaseException: Of the clock. It was decided all the same, as of the moment that the clock has told last.
    """
    decide = exclusive(step)

    @wraps(step)
    def read_and_decide(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            self._moment = now = self._time()
        except BaseException:
            decide(self, self._moment, *args, **kwargs)
            self.wake_again()  # what it returns is lost
            raise
        return decide(self, now, *args, **kwargs)

    return read_and_decide  # type: ignore[return-value]  # mypy knows the wrapper's `self` by name
