"""Notices two mistakes while an application runs, and names the line.

Work that blocks the event loop, and a job that uses another GPU than it was given. Off unless you give it to a
Director; meant for development and for the first days of a service. It needs no framework: the loop is watched from a
thread, the device of a thread is asked of the CUDA driver, that of a value by DLPack's protocol.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from director._guard.attendance import Attendance
from director._guard.cuda import Driver
from director._guard.loop_watch import LoopWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director import Device, Job
    from director._guard.places import Place
    from director.events import Event
    from director.hooks import RawRecord

__all__ = ["Finding", "Guard"]

logger = logging.getLogger("director.guard")


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, and the line where it was seen.

    Args:
        kind: ``"loop blocked"`` or ``"other device"``.
        file: The source file.
        line: The line in it, from 1.
        function: The function it is in.
        source: What stands there.
        message: What is wrong and what to do, in words.
        seconds: The longest that the loop stood still there; 0 for another device.
        times: How often it was seen.
    """

    kind: Literal["loop blocked", "other device"]
    file: str
    line: int
    function: str
    source: str
    message: str
    seconds: float = 0.0
    times: int = 1


class Guard:
    """A hook that looks for mistakes: ``Director(hooks=[guard])``. One Guard for each Director.

    Each line is logged once, as a WARNING of ``director.guard``; `findings` counts all.

    Args:
        longest_block: Seconds for which the event loop may be busy without answering; `None` doesn't watch it.
        first: Calls of each function on each slot that get a close look: they run slower. 0 takes no close looks.
        every: After these, one of so many calls gets one.

    Raises:
        ValueError: A number is out of range.
    """

    wants: tuple[type[Event], ...] = ()

    def __init__(self, *, longest_block: float | None = 0.1, first: int = 2, every: int = 1_000) -> None:
        if longest_block is not None and not longest_block > 0:
            raise ValueError(f"longest_block must be positive seconds or None, not {longest_block!r}")
        if first < 0 or every < 1:
            raise ValueError(f"first must be at least 0 and every at least 1, not {first!r} and {every!r}")
        self._longest_block = longest_block
        self._first = first
        self._every = every
        self._driver = Driver.load()
        self._watch: LoopWatch | None = None
        self._calls: Counter[tuple[str, int]] = Counter()  # by name and thread, each key written by its own thread
        self._lock = threading.Lock()  # guards `_findings`: slots' threads and the watching one write
        self._findings: dict[tuple[str, str, int], Finding] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far, oldest first; from any thread."""
        with self._lock:
            return tuple(self._findings.values())

    # ---- what the Director calls

    def __call__(self, event: Event) -> None:
        """It wants no events."""

    def begin(
        self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Callable[[], list[RawRecord]]
    ) -> None:
        """A Director opens on this event loop: watch it."""
        if self._longest_block is not None:
            self._watch = LoopWatch(asyncio.get_running_loop(), self._longest_block, self._driver, self._note_block)

    def end(self, at: float) -> None:
        """The Director has closed."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def attend(self, jobs: Sequence[Job[Any]]) -> Attendance:
        """Look after a call: closely, or only at what it leaves behind."""
        key = (jobs[0].name, threading.get_ident())
        number = self._calls[key]
        self._calls[key] = number + 1
        is_close = number < self._first or (self._first > 0 and number % self._every == 0)
        return Attendance(self, self._driver, jobs[0].name, key, is_close)

    # ---- what it finds

    def suspect(self, key: tuple[str, int]) -> None:
        """Take a close look at the next call."""
        self._calls[key] = 0

    def note_device(self, name: str, given: Device, place: Place, used: int, what: str) -> None:
        """A job has used another device than it was given."""
        self._note(
            "other device",
            place,
            f"job {name!r} was given {given.label}, and {what} is on cuda:{used}. "
            f"Use the device that the job is given (str(device) == {str(given)!r}) instead of one of its own.",
        )

    def _note_block(self, place: Place, seconds: float, on_gpu: bool) -> None:
        what = "GPU work blocked" if on_gpu else "Something blocked"
        remedy = (
            "give it to the Director: `await director.run(function, ...)`"
            if on_gpu
            else ("give it to a thread (`asyncio.to_thread`), or to the Director if it is GPU work")
        )
        self._note("loop blocked", place, f"{what} the event loop; {remedy}.", seconds)

    def _note(self, kind: Any, place: Place, message: str, seconds: float = 0.0) -> None:
        key = (kind, place.file, place.line)
        with self._lock:
            before = self._findings.get(key)
            if before is not None:
                longest = max(before.seconds, seconds)
                self._findings[key] = replace(before, times=before.times + 1, seconds=longest)
                return
            self._findings[key] = Finding(kind, *place, message, seconds)
        took = f" for {seconds:.3f} s" if seconds else ""
        logger.warning("%s%s at %s\n  %s", kind, took, place, message)
