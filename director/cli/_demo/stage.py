"""Shows the lanes: live on a terminal with rich, as plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from director.cli._console import hint_at_rich, on_terminal, print_error

if TYPE_CHECKING:
    from director.cli._demo.contenders import Recording
    from director.cli._demo.trace import Call


class Stage(Protocol):
    """Shows contenders one after the other, under one kind of event loop."""

    def __enter__(self) -> Stage: ...

    def __exit__(self, *_: object) -> None: ...

    def play(self, name: str, recording: Recording) -> None:
        """The contender `name` begins now; `recording` grows while it runs."""


def open_stage(trace: list[Call], devices: int, loop: str) -> Stage:
    """The stage for the standard error: live on a terminal, else plain lines.

    Args:
        trace: The stream of jobs.
        devices: How many devices there are.
        loop: What else the event loop does.
    """
    if not on_terminal(sys.stderr):
        return PlainStage(loop)
    try:
        from director.cli._demo.lanes import Lanes
    except ImportError:
        hint_at_rich()
        return PlainStage(loop)
    return Lanes(trace, devices, loop)


class PlainStage:
    """Prints a line when a contender begins."""

    def __init__(self, loop: str) -> None:
        self._loop = loop

    def __enter__(self) -> PlainStage:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def play(self, name: str, recording: Recording) -> None:
        """Print the line."""
        print_error(f"   measuring: {name}, event loop {self._loop}")
