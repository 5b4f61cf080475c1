"""Progress for people and programs: bars on a terminal, occasional lines elsewhere, JSON, nothing with --quiet."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from director import _format
from director.cli._console import hint_at_rich, on_terminal, print_error
from director.cli._run.progress.meter import how_far, time_left

if TYPE_CHECKING:
    from types import TracebackType

    from director.cli._run.output.sinks import Stream
    from director.cli._run.progress.meter import Reading

ViewKind: TypeAlias = Literal["auto", "lines", "json", "none"]
_FIRST_LINE, _LAST_STEP = 2.0, 30.0  # s: a line after 2 s, then 4, 8, ... later: short logs of long runs


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


def make_view(kind: ViewKind) -> View:
    """The view for the standard error."""
    if kind == "none":
        return NoProgress()
    if kind == "json":
        return ProgressDocuments()
    if kind == "lines" or not on_terminal(sys.stderr):
        return ProgressLines()
    try:
        from director.cli._run.progress.bars import Bars
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


class ProgressLines(NoProgress):
    """Plain lines on the standard error, for logs and pipes; less often the longer the run takes."""

    def __init__(self) -> None:
        self.pause = _FIRST_LINE

    def show(self, reading: Reading) -> None:
        """Write one line."""
        self.pause = min(_LAST_STEP, max(_FIRST_LINE, reading.elapsed))
        self.say(one_line(reading))

    def say(self, line: str) -> None:
        """Write it."""
        print_error(line)


class ProgressDocuments(NoProgress):
    """A line of JSON a second on the standard error, for programs."""

    pause = 1.0

    def show(self, reading: Reading) -> None:
        """Write one line."""
        document = {
            "elapsed": round(reading.elapsed, 3),
            "done": reading.done,
            "failed": reading.failed,
            "total": reading.total,
            "left_out": reading.left_out,
            "per_second": round(reading.rate, 3),
            "seconds_left": None if reading.remaining is None else round(reading.remaining, 1),
            "devices": {lane.device: round(lane.busy, 4) for lane in reading.lanes},
        }
        print_error(json.dumps({"progress": document}))

    def say(self, line: str) -> None:
        """Write it as the field of a line."""
        print_error(json.dumps({"message": line}))


def one_line(reading: Reading) -> str:
    """``12 s  400 of 1,797 (22.3 %)  33.4/s  0:00:42 left  2 failed  cuda:0 97 %  cuda:1 95 % busy``."""
    parts = [_format.about(reading.elapsed), how_far(reading), _format.rate(reading.rate)]
    if (left := time_left(reading)) is not None:
        parts.append(left)
    if reading.failed:
        parts.append(f"{_format.count(reading.failed)} failed")
    parts += [f"{lane.device} {lane.busy * 100:.0f} %" for lane in reading.lanes]
    return "  ".join(parts) + " busy"
