"""Notices two mistakes while an application runs, and names the line.

Work that blocks the event loop, and a job that uses another GPU than it was given. Off unless you give it to a
Director; meant for development and for the first days of a service. It needs no framework: the loop is watched from a
thread, the device of a thread is asked of the CUDA driver, that of a value by DLPack's protocol.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from director._untrusted.numbers import seconds, whole
from director.guard._call_check import GuardedCall
from director.guard._cuda import Driver
from director.guard._findings import Finding, FindingLog
from director.guard._loop_watch import LoopWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director import Device, Job
    from director.events import Event
    from director.hooks import RawRecord

__all__ = ["Finding", "Guard"]


class Guard:
    """A hook that looks for mistakes: ``Director(hooks=[guard])``. One Guard for each Director.

    Each line is logged once, as a WARNING of ``director.guard``; `findings` counts all.

    Args:
        longest_block: Seconds for which the event loop may be busy without answering; `None` doesn't watch it.
        first: Calls of each function on each slot that get a close look: they run slower. 0 takes no close looks.
        every: After these, one of so many calls gets one.

    Raises:
        TypeError: One of them is no number.
        ValueError: A number is out of range.
    """

    wants: tuple[type[Event], ...] = ()

    def __init__(self, *, longest_block: float | None = 0.1, first: int = 2, every: int = 1000) -> None:
        if longest_block is not None:
            longest_block = seconds("longest_block", longest_block, hint="; None doesn't watch the loop")
        self._longest_block = longest_block
        self._driver = Driver.load()
        self._notebook = FindingLog(whole("first", first, 0), whole("every", every, 1))
        self._watch: LoopWatch | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far, oldest first; from any thread."""
        return self._notebook.findings()

    # ---- what the Director calls

    def __call__(self, event: Event) -> None:
        """It wants no events."""

    def begin(
        self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Callable[[], list[RawRecord]]
    ) -> None:
        """A Director opens on this event loop: watch it."""
        if self._longest_block is not None:
            loop = asyncio.get_running_loop()
            self._watch = LoopWatch(loop, self._longest_block, self._driver, self._notebook.note_block)

    def devices_changed(self, slots: tuple[Device, ...]) -> None:
        """It watches the event loop and the calls, not the devices."""

    def end(self, at: float) -> None:
        """The Director has closed."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def around_call(self, jobs: Sequence[Job[Any]]) -> GuardedCall:
        """Look after a call: closely, or only at what it leaves behind."""
        name = jobs[0].name
        key = (name, threading.get_ident())
        return GuardedCall(self._notebook, self._driver, name, key, self._notebook.is_traced(key))
