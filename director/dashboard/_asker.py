"""Has users' objects say what they are, on a thread of its own. Owner of the thread: the Asker.

A `__str__` may take any time, and a traceback reads files. Each question is asked once. One that takes too long keeps
its thread, and another thread goes on with the rest; after a few of those nothing more is asked.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_WAITING = 100  # questions
_PATIENCE = 1.0  # seconds
_MOST_STUCK = 4  # threads


class Asker:
    """Asks one question after the other; the thread ends when there are no more."""

    def __init__(self) -> None:
        # Held for a few steps, never while a question is asked; a finalizer or a signal handler may ask in the midst.
        self._lock = threading.RLock()
        self._questions: deque[Callable[[], None]] = deque()
        self._worker: threading.Thread | None = None  # the one that goes on
        self._since = 0.0  # when it began with its question
        self._stuck = 0

    def ask(self, question: Callable[[], None]) -> bool:
        """Have `question` called soon, on another thread; False if that can't be. It must not raise."""
        with self._lock:
            if self._worker is not None and monotonic() - self._since > _PATIENCE:
                if self._stuck == _MOST_STUCK:
                    _unasked = self._clear()  # let go of without the lock: this may run user code
                    return False
                self._worker = None  # it takes up nothing more when it comes back
                self._stuck += 1
            if len(self._questions) >= _MOST_WAITING:
                return False
            self._questions.append(question)
            if self._worker is None:
                worker, now = threading.Thread(target=self._work, name="director-asker", daemon=True), monotonic()
                if self._worker is None:  # still: no finalizer has asked meanwhile
                    self._worker, self._since = worker, now
                    try:
                        worker.start()
                    except (RuntimeError, MemoryError):  # no thread can be started now
                        self._worker = None
                        _unasked = self._clear()
                        return False
        return True

    def _clear(self) -> deque[Callable[[], None]]:
        unasked, self._questions = self._questions, deque()
        return unasked

    def settle(self, seconds: float = 10.0) -> None:
        """Wait until all questions have been asked."""
        worker = self._worker
        if worker is not None:
            worker.join(seconds)

    def _work(self) -> None:
        mine = threading.current_thread()
        while True:
            with self._lock:
                if self._worker is not mine:
                    self._stuck -= 1  # the question that took so long is answered
                    return
                if not self._questions:
                    self._worker = None
                    return
                question = self._questions.popleft()
                self._since = monotonic()
            question()
            del question  # with the exception that it holds
