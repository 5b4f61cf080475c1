"""The calls that have come to an actor: which is made next, which were withdrawn. For any thread, behind one lock.

A call is either withdrawn or begun, and both at most once: the lock decides.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from director._executors.ray.messages import WITHDRAW, Answer, AnswerKind
from director._ipc.protocol import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors.ray.actor.last_begun import LastBegun

_REMEMBERED = 64  # numbers of calls: far more than are ever on their way


class ReceivedCall:
    """A call, and the answer that one of Ray's threads waits for.

    Args:
        number: The call's.
        content: The rest of it.
    """

    __slots__ = ("_answer", "_done", "content", "number")

    def __init__(self, number: int, content: Any) -> None:
        self.number = number
        self.content = content
        self._answer: Answer | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self, answer: Answer) -> None:
        """Give the answer; once."""
        self._answer = answer
        self._done.release()

    def wait(self) -> Answer:
        """The answer, when there is one."""
        self._done.acquire()
        assert self._answer is not None
        return self._answer


class CallQueue:
    """Calls in the order of their numbers.

    Args:
        begun: Keeps the numbers of those that have begun.
        on_notice: Called, under the lock, when something is said about the call that is made.
    """

    def __init__(self, begun: LastBegun, on_notice: Callable[[], None]) -> None:
        self._some = threading.Condition()  # its lock is reentrant: a collected object's `__del__` may come back
        self._waiting: dict[int, ReceivedCall] = {}
        self._withdrawn: set[int] = set()  # before they have come
        self._begun = begun
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)  # those that have begun or were withdrawn
        self._current = 0
        self._notice = Notice.NONE  # about the current one
        self._on_notice = on_notice
        self._is_closed = False

    def put(self, call: ReceivedCall) -> None:
        """A call has come."""
        with self._some:
            if call.number in self._withdrawn or call.number in self._recent:  # never twice
                self._withdrawn.discard(call.number)
                self._forget(call)
            else:
                self._waiting[call.number] = call
                self._some.notify()

    def next(self) -> ReceivedCall | None:
        """Begin the next call, when there is one; `None` once the queue is closed and empty.

        Raises:
            OSError: Another actor has come in place of this one.
        """
        with self._some:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._some.wait()
            number = min(self._waiting)
            self._begun.write(number)
            self._recent.append(number)
            self._current, self._notice = number, Notice.NONE
            return self._waiting.pop(number)

    def request(self, number: int, what: int) -> None:
        """The driver wants something of a call.

        Args:
            number: Of the call.
            what: `WITHDRAW`, or a `Notice`, which withdraws it too if it has not begun.
        """
        with self._some:
            if number == self._current:
                if what != WITHDRAW:
                    self._notice = Notice(what)
                    self._on_notice()
            elif (call := self._waiting.pop(number, None)) is not None:
                self._forget(call)
            elif number not in self._recent:
                self._withdrawn.add(number)
                if len(self._withdrawn) > _REMEMBERED:
                    self._withdrawn.remove(min(self._withdrawn))

    def look(self, number: int) -> Notice:
        """What was said about a call."""
        return self._notice if number == self._current else Notice.NONE

    def close(self) -> None:
        """No call comes any more."""
        with self._some:
            self._is_closed = True
            self._some.notify()

    def _forget(self, call: ReceivedCall) -> None:
        self._recent.append(call.number)
        call.finish(Answer(call.number, AnswerKind.WITHDRAWN))
