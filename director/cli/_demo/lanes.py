"""Lanes on a terminal: one strip of time per device. The only importer of rich for `director demo`.

The height of a cell is the share of time that its device was busy. The rest is red if a job was waiting: better
scheduling would have used it. All strips of one demo have the same scale, so their lengths can be compared.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from director.cli._rich import EscapingConsole, live

if TYPE_CHECKING:
    from rich.live import Live

    from director.cli._demo.contenders import Recording
    from director.cli._demo.trace import Call

_HEIGHTS = " ▁▂▃▄▅▆▇█"
_LABEL = 17
_MOST_COLUMNS = 100
_ROOM = 1.5  # times the stream's length; a longer strip ends in an arrow
_FRAMES = 5  # per second; drawing takes time from what is being measured


class Lanes:
    """Draws the contender that runs, from a thread of its own; the results of earlier ones stay above."""

    def __init__(self, trace: list[Call], devices: int, loop: str) -> None:
        self._console = EscapingConsole(stderr=True)
        self._columns = min(_MOST_COLUMNS, self._console.width - _LABEL - 2)
        self._arrivals = [call.arrival for call in trace]
        self._scale = self._arrivals[-1] * _ROOM / self._columns
        self._devices = devices
        self._loop = loop
        self._live: Live | None = None

    def __enter__(self) -> Lanes:
        title = Text.assemble((f"   event loop {self._loop}", "bold"), "   ")
        legend = Text.assemble(("  ", "on green"), " busy  ", ("  ", "on red"), " idle while a job waits")
        self._console.print(title.append_text(legend))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._console.print()

    def play(self, name: str, recording: Recording) -> None:
        """The contender `name` begins now; `recording` grows while it runs."""
        self._stop()
        self._live = live(
            self._console, refresh_per_second=_FRAMES, get_renderable=lambda: self._block(name, recording)
        )
        self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()  # draws once more, so that the last state is shown
            self._live = None

    def _block(self, name: str, recording: Recording) -> Group:
        now = recording.now
        red = _waiting(self._arrivals, recording, self._scale, self._columns)
        lanes = enumerate(_busy(recording, self._scale, self._columns))
        strips = [_strip(f"   simulated:{device}", cells, red, now / self._scale) for device, cells in lanes]
        return Group(Text(f"   {name}, {now:.2f} s", style="cyan"), *strips)


def _strip(label: str, busy: list[float], red: list[bool], until: float) -> Text:
    line = Text(label.ljust(_LABEL))
    cells = list(zip(busy, red, strict=True))[: int(until) + 1]
    for waits, same in itertools.groupby(cells, key=lambda cell: cell[1] and cell[0] < 1):
        heights = "".join(_HEIGHTS[round(min(1.0, share) * (len(_HEIGHTS) - 1))] for share, _ in same)
        line.append(heights, style="green on red" if waits else "green on grey15")
    return line.append("→") if until > len(busy) else line


def _busy(recording: Recording, scale: float, columns: int) -> list[list[float]]:
    """For each device and cell, the share of time that it ran something."""
    lanes = [[0.0] * columns for _ in range(recording.devices)]
    now = recording.now
    ended = [(run.device, run.started, run.ended) for run in list(recording.runs)]
    running = [(device, started, now) for device, (_, started) in list(recording.running.items())]
    for device, started, until in (*ended, *running):
        for cell in range(int(started / scale), min(columns - 1, int(until / scale)) + 1):
            lanes[device][cell] += (min(until, (cell + 1) * scale) - max(started, cell * scale)) / scale
    return lanes


def _waiting(arrivals: list[float], recording: Recording, scale: float, columns: int) -> list[bool]:
    """For each cell, whether a job was waiting in its middle."""
    running = [started for _, started in list(recording.running.values())]
    starts = sorted([run.started for run in list(recording.runs)] + running)
    moments = [(cell + 0.5) * scale for cell in range(columns)]
    return [bisect_right(arrivals, moment) > bisect_right(starts, moment) for moment in moments]
