"""The calls that an actor has received, and whether each begins or is withdrawn. For any thread, under one lock."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from director._executors.ray.messages import WITHDRAW, Answer, AnswerKind
from director._ipc.protocol import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors.ray.actor.last_begun import LastBegun

_REMEMBERED = 64  # numbers of calls: far more than are ever in flight


class ReceivedCall:
    """A call, and its answer, for which one of Ray's threads waits.

    Args:
        number: The number of the call.
        content: Its header and arguments.
    """

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
