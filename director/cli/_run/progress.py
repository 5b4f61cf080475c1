"""Progress for people: bars on a terminal, occasional lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from director import _format
from director.cli._console import hint_at_rich, on_terminal, print_error
from director.cli._run.meter import how_far

if TYPE_CHECKING:
    from types import TracebackType

    from director.cli._run.io_threads import Stream
    from director.cli._run.meter import Reading

_FIRST_LINE, _LAST_STEP = 2.0, 60.0  # s: a line after 2 s, then 4, 8, ... later: short logs of long runs


class View(Protocol):
    """Shows readings and prints lines."""

    pause: float
    """Seconds until the next reading is worth showing."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, reading: Reading) -> None:
        """Show progress."""

    def say(self, line: str) -> None:
        """Print a line, such as an item's error."""

    def results_above(self) -> Stream | None:
        """The stream for results that go to the same terminal; `None` if they don't interfere."""


def make_view(*, quiet: bool) -> View:
    """The view for the standard error."""
    if quiet:
        return NoProgress()
    if not on_terminal(sys.stderr):
        return ProgressLines()
    try:
        from director.cli._run.bars import Bars
    except ImportError:
        hint_at_rich()
        return ProgressLines()
    return Bars()


class NoProgress:
    """Shows nothing."""

    pause = 3600.0

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, reading: Reading) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Print nothing."""

    def results_above(self) -> Stream | None:
        """Results don't interfere."""
        return None


class ProgressLines:
    """Plain lines on the standard error, for logs and pipes; less often the longer the run takes."""

    def __init__(self) -> None:
        self.pause = _FIRST_LINE

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, reading: Reading) -> None:
        """Write one line."""
        self.pause = min(_LAST_STEP, max(_FIRST_LINE, reading.elapsed))
        self.say(one_line(reading))

    def say(self, line: str) -> None:
        """Write it."""
        print_error(line)

    def results_above(self) -> Stream | None:
        """Both kinds of lines may be mixed."""
        return None


def one_line(reading: Reading) -> str:
    """``12 s  400 of 1,797 (22.3 %)  33.4/s  ETA 42 s  2 failed  cuda:0 97 %  cuda:1 95 % busy``."""
    parts = [_format.about(reading.elapsed), how_far(reading), _format.rate(reading.rate)]
    if reading.remaining is not None:
        parts.append(f"ETA {_format.about(reading.remaining)}")
    if reading.failed:
        parts.append(f"{_format.count(reading.failed)} failed")
    parts += [f"{lane.device} {lane.busy * 100:.0f} %" for lane in reading.lanes]
    return "  ".join(parts) + " busy"
