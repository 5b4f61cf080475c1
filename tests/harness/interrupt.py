"""Runs code between any two lines of the scheduler, as signals and the collector do, but at lines that a test chooses.

CPython looks for signals when a function is entered, when a loop turns and after each call; a trace function is called
at each of these lines and more. What is raised there comes out of the line, as it does out of a signal handler.
"""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import director

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

HOUSE = str(Path(director.__file__).parent)
# Before these CPython looks for no signals, and calls a trace function: the end of a `with` or of a `finally` that only
# releases, a mere assignment, and what takes an entry off a queue without a call.
_STRAIGHT = (
    "with self._lock:",
    "try:",
    "self._is_deciding = False",
    "self._lock.release()",
    "return None",
    "post = posts[0]",
    "del posts[0]",
    "entry = callbacks[0]",
    "del callbacks[0]",
    "callback, context, job = entry",
    "context.run(callback, job)",
)


class Interrupter:
    """Calls `act` at the lines of director/ that this thread comes to while it is installed.

    Args:
        act: What is called. It is not interrupted itself.
        at: The number of the only line at which it is called; `None` for all.
        is_due: Whether a line counts.
    """

    def __init__(self, act: Callable[[], object], at: int | None, is_due: Callable[[], bool] = lambda: True) -> None:
        self._act = act
        self._at = at
        self._is_due = is_due
        self.lines = 0
        self._last_lines: dict[int, int] = {}  # of frames, by their ids
        # One object for all calls: CPython holds no reference to the one it is about to call, and a collection just
        # before may call a finalizer, which is traced, and so install another.
        self._tracer = self._trace

    def __enter__(self) -> Interrupter:
        self._before = sys.gettrace()
        sys.settrace(self._tracer)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(HOUSE):
            return None
        if self._turns_on_one_line(frame, event):
            return self._tracer
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event not in ("call", "line") or line.startswith(_STRAIGHT) or not self._is_due():
            return self._tracer
        self.lines += 1
        if self._at is None or self.lines - 1 == self._at:
            sys.settrace(None)
            self._act()
            sys.settrace(self._tracer)
        return self._tracer

    def _turns_on_one_line(self, frame: FrameType, event: str) -> bool:
        """Whether a loop on one line, such as a comprehension, begins its next turn.

        From Python 3.12 on, what a trace function raises there skips the end of the `with` around it. A signal handler
        may raise there all the same: the lock is then released.
        """
        last = None if event == "call" else self._last_lines.get(id(frame))
        self._last_lines[id(frame)] = frame.f_lineno
        return event == "line" and last == frame.f_lineno
