"""What goes past the calls of an actor: notices to it, notes from it. Each behind a lock of its own, for any thread."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from director._executors._ray.pickling import dumps
from director._executors._remote import Notice

if TYPE_CHECKING:
    from director._executors._ray.wire import Answer

_MOST = 10_000  # notes that wait for the driver; more are dropped, and counted
_MOST_WITHDRAWN = 1_000  # calls that were taken back, some of which never come
_TURN = 30.0  # seconds after which the driver asks again


class Notices:
    """What the driver has said about calls that are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current = self._highest = 0
        self._said: dict[int, int] = {}  # of calls from the current one on
        self._withdrawn: set[int] = set()

    def begin(self, number: int) -> bool:
        """The turn of a call has come; False if it was taken back."""
        with self._lock:
            self._current = number
            self._highest = max(self._highest, number)
            for old in [other for other in self._said if other < number]:
                del self._said[old]
            if len(self._withdrawn) > _MOST_WITHDRAWN:
                self._withdrawn = {other for other in self._withdrawn if other > number - _MOST_WITHDRAWN}
            if number in self._withdrawn:
                self._withdrawn.discard(number)
                return False
            return True

    def withdraw(self, numbers: list[int]) -> list[int]:
        """Take back those that have not begun: none that one with a higher number has overtaken, for it may have."""
        with self._lock:
            taken = [number for number in numbers if number > self._highest]
            self._withdrawn.update(taken)
            return taken

    def post(self, number: int, notice: int) -> None:
        """Say something about a call that runs or will run."""
        with self._lock:
            if number >= self._current:
                self._said[number] = notice

    def look(self, number: int) -> int:
        """What was said about a call: a `Notice`."""
        return self._said.get(number, Notice.NONE)


class Notes:
    """What is to be told to the driver, in order; and answers of calls, while the call thread goes on with others."""

    def __init__(self) -> None:
        self._some = threading.Condition()
        self._notes: list[tuple[int, bytes]] = []
        self._dropped = 0
        self._answers: list[tuple[int, Answer | bytes]] = []
        self._due = math.inf  # the moment at which they are told

    def add(self, number: int, content: Any) -> None:
        """Tell something about the call `number`, or with 0 a log record.

        Raises:
            PicklingError: It can't be sent.
        """
        packed = dumps(content)  # here: what can't be sent must not spoil the others
        with self._some:
            if len(self._notes) >= _MOST:
                self._dropped += 1
                return
            self._notes.append((number, packed))
            self._some.notify()

    def tell(self, number: int, answer: Answer | bytes, due: float) -> None:
        """Tell the answer of the call `number`, at the moment `due` at the latest if it is the first."""
        with self._some:
            self._answers.append((number, answer))
            if len(self._answers) == 1:
                self._due = due
                self._some.notify()

    def untold(self) -> list[tuple[int, Answer | bytes]]:
        """The answers that are not on their way; they are the caller's now."""
        with self._some:
            answers, self._answers = self._answers, []
            self._due = math.inf
            return answers

    def take(self) -> tuple[list[tuple[int, bytes]], list[tuple[int, Answer | bytes]]]:
        """All notes and answers there are, waiting a while for the first."""
        until = time.monotonic() + _TURN
        with self._some:
            while not self._notes and (left := min(until, self._due) - time.monotonic()) > 0:
                self._some.wait(left)
            return self.drain(), self.untold()

    def drain(self) -> list[tuple[int, bytes]]:
        """All notes there are now."""
        with self._some:
            notes, self._notes = self._notes, []
            if self._dropped:
                notes.append((-1, dumps(self._dropped)))
                self._dropped = 0
            return notes
