"""The calls that an actor has received, and whether each begins or is withdrawn. For any thread, under one lock."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from struct import pack_into, unpack
from typing import TYPE_CHECKING, Any

from director._executors.ray.messages import WITHDRAW, Answer, AnswerKind
from director._ipc.protocol import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED = 64  # numbers of calls: far more than are ever in flight


class ReceivedCall:
    """A call, and its answer, for which one of Ray's threads waits."""

    __slots__ = ("_answer", "_done", "content", "number")

    def __init__(self, number: int, content: Any) -> None:
        self.number = number
        self.content = content
        self._answer: Answer | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self, answer: Answer) -> None:
        """Set the answer; once."""
        self._answer = answer
        self._done.release()

    def wait(self) -> Answer:
        """Wait for the answer."""
        self._done.acquire()
        assert self._answer is not None
        return self._answer


class CallQueue:
    """Calls in the order of their numbers.

    Args:
        begun: Keeps the numbers of calls that have begun.
        on_notice: Called under the lock when the current call gets a notice.
    """

    def __init__(self, begun: LastBegun, on_notice: Callable[[], None]) -> None:
        self._changed = threading.Condition()  # with a reentrant lock: a finalizer may call `request`
        self._waiting: dict[int, ReceivedCall] = {}
        self._withdrawn: set[int] = set()  # before they were received
        self._begun = begun
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)  # calls that have begun or were withdrawn
        self._current = 0
        self._notice = Notice.NONE  # for the current call
        self._on_notice = on_notice
        self._is_closed = False

    def put(self, call: ReceivedCall) -> None:
        """Add a call that was received."""
        with self._changed:
            if call.number in self._withdrawn or call.number in self._recent:  # never begun twice
                self._withdrawn.discard(call.number)
                self._give_back(call)
            else:
                self._waiting[call.number] = call
                self._changed.notify()

    def next(self) -> ReceivedCall | None:
        """Wait for the next call and begin it; returns `None` once the queue is closed and empty.

        Raises:
            OSError: Another actor has replaced this one.
        """
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
            number = min(self._waiting)
            self._begun.write(number)
            self._recent.append(number)
            self._current, self._notice = number, Notice.NONE
            return self._waiting.pop(number)

    def request(self, number: int, what: int) -> None:
        """Withdraw or notify a call.

        Args:
            number: The number of the call.
            what: `WITHDRAW`, or a `Notice`; either withdraws a call that has not begun.
        """
        with self._changed:
            if number == self._current:
                if what != WITHDRAW:
                    self._notice = Notice(what)
                    self._on_notice()
            elif (call := self._waiting.pop(number, None)) is not None:
                self._give_back(call)
            elif number not in self._recent:
                self._withdrawn.add(number)
                if len(self._withdrawn) > _REMEMBERED:
                    self._withdrawn.remove(min(self._withdrawn))

    def look(self, number: int) -> Notice:
        """The notice for a call."""
        return self._notice if number == self._current else Notice.NONE

    def close(self) -> None:
        """No call is added any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _give_back(self, call: ReceivedCall) -> None:
        self._recent.append(call.number)
        call.finish(Answer(call.number, AnswerKind.WITHDRAWN))


KEPT = 8  # numbers: more calls than are ever in flight to one actor
_FORM = f"<{KEPT}q"
_SIZE = 8 * KEPT


class LastBegun:
    """The numbers of the last calls that an actor has begun, in a file that outlives it; written by its call thread.

    When an actor dies, its answers are lost, and Ray can't tell whether a call had begun. The actor that replaces it,
    on the same machine, reads that here. Both take a lock on the file, so the second reads when the first has ended,
    and the first begins no call once the second has the lock.

    Args:
        name: The name of the file, the same for all actors of a slot.
        is_first: Whether it is the first actor of the slot, whose file is created with the first number. Any other
            waits here for the end of the one before.
    """

    def __init__(self, name: str, *, is_first: bool) -> None:
        self._path = Path(tempfile.gettempdir()) / name
        self._page: mmap.mmap | None = None
        self._count = 0
        if not is_first:
            self._open(fcntl.LOCK_EX)

    def write(self, number: int) -> None:
        """The call with this number begins.

        Raises:
            OSError: Another actor has replaced this one, which must not begin a call.
        """
        if self._page is None:
            self._open(fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert self._page is not None
        pack_into("<q", self._page, 8 * (self._count % KEPT), number)
        self._count += 1

    def read(self) -> tuple[int, ...]:
        """The numbers, in no order; calls are counted from 1."""
        return () if self._page is None else tuple(number for number in unpack(_FORM, self._page[:]) if number)

    def remove(self) -> None:
        """Remove the file: no actor replaces this one."""
        with suppress(OSError):
            self._path.unlink()

    def _open(self, lock: int) -> None:
        # Not closed, which would release the lock. Processes that a job forks don't inherit it.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, lock)
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, _SIZE)
        self._page = mmap.mmap(descriptor, _SIZE)
