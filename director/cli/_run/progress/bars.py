"""Progress on a terminal: a bar for the whole and one per device. The only importer of rich for `director run`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from director import _format
from director.cli._rich import EscapingConsole, live
from director.cli._run.progress.meter import how_far, time_left

if TYPE_CHECKING:
    from director.cli._run.output.sinks import Stream
    from director.cli._run.progress.meter import LaneReading, Reading


class Bars:
    """Draws on the standard error; other output there, or on the standard output, is printed above the bars."""

    pause = 0.2

    def __init__(self) -> None:
        self._console = EscapingConsole(stderr=True)
        self._live = live(self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Bars:
        with contextlib.suppress(OSError):  # the terminal is gone, here and below
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def show(self, reading: Reading) -> None:
        """Draw it in place of the previous one."""
        with contextlib.suppress(OSError):
            self._live.update(Group(_whole(reading), _lanes(reading)), refresh=True)

    def say(self, line: str) -> None:
        """Print it above the bars."""
        with contextlib.suppress(OSError):
            self._console.print(Text(line), soft_wrap=True)

    def results_above(self) -> Stream | None:
        """A stream for results on the same terminal, printed above the bars."""
        return _LinesAbove(self._console)


class _LinesAbove:
    """Prints lines of results above the bars."""

    def __init__(self, console: EscapingConsole) -> None:
        self._console = console

    def write(self, lines: bytes) -> None:
        self._console.print(Text(lines.decode().removesuffix("\n")), soft_wrap=True)

    def close(self) -> None:
        return None


def _whole(reading: Reading) -> Table:
    grid = Table.grid(padding=(0, 2), expand=False)
    left = time_left(reading)
    failed = Text(f"{_format.count(reading.failed)} failed", style="red") if reading.failed else Text("")
    parts: list[Text | ProgressBar] = [
        Text(how_far(reading), style="bold"),
        Text(_format.rate(reading.rate)),
        Text(_format.about(reading.elapsed) + ("" if left is None else f", {left}")),
        failed,
    ]
    if reading.total:
        parts.insert(0, ProgressBar(total=reading.total, completed=reading.done, width=28))
    grid.add_row(*parts)
    return grid


def _lanes(reading: Reading) -> Table:
    grid = Table.grid(padding=(0, 2))
    for column in ("left", "left", "right", "right", "right"):
        grid.add_column(justify=column)
    for lane in reading.lanes:
        grid.add_row(*_lane(lane))
    return grid


def _lane(lane: LaneReading) -> tuple[Text | ProgressBar, ...]:
    bar = ProgressBar(total=1.0, completed=lane.busy, width=16, complete_style="green", finished_style="green")
    mean = f"{_format.duration(lane.mean)} each" if lane.items else ""
    words = (f"{lane.busy * 100:.0f} % busy", _format.counted(lane.items, "item"), mean)
    return (Text(_format.plain(lane.device)), bar, *map(Text, words))
