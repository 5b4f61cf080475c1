"""Detects three mistakes while an application runs, and reports the line.

The mistakes are work that blocks the event loop, a job that uses another GPU than it was given, and autograd that
records in a job though it is switched off on the event loop's thread. It is off unless you give a `Guard` to a
Director; it is meant for development and for the first days of a service. It needs no framework: a thread watches the
loop, the CUDA driver reports the device of a thread, and DLPack that of a value.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from director._untrusted.numbers import seconds, whole
from director.guard._call_check import GuardedCall, is_switched_off
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
    """A hook that detects mistakes: ``Director(hooks=[guard])``. One Guard for each Director.

    Each line is logged once, as a WARNING of ``director.guard``; `findings` counts all.

    Args:
        longest_block: Seconds that the event loop may be blocked; `None` does not watch it.
        first: The first calls of each function on each slot, which are traced and run slower. 0 traces no calls.
        every: After these, one of this many calls is traced.

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
        self._records_nothing = False  # autograd is switched off on the event loop's thread

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings so far, oldest first; from any thread."""
        return self._notebook.findings()

    # ---- called by the Director

    def __call__(self, event: Event) -> None:
        """It wants no events."""

    def begin(
        self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Callable[[], list[RawRecord]]
    ) -> None:
        """A Director opens on this event loop: watch it."""
        self._records_nothing = is_switched_off()
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
        """Check a call: trace it, or only compare the thread's device before and after it."""
        name = jobs[0].name
        key = (name, threading.get_ident())
        is_traced = self._notebook.is_traced(key)
        return GuardedCall(self._notebook, self._driver, name, key, is_traced, self._records_nothing)
