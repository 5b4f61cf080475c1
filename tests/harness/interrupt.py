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
# releases, and a mere assignment.
_STRAIGHT = ("with self._lock:", "try:", "self._is_deciding = False", "self._release()", "return None")


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

    def __enter__(self) -> Interrupter:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(HOUSE):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event not in ("call", "line") or line.startswith(_STRAIGHT) or not self._is_due():
            return self._trace
        self.lines += 1
        if self._at is None or self.lines - 1 == self._at:
            sys.settrace(None)
            self._act()
            sys.settrace(self._trace)
        return self._trace
