"""Items through the Director: from the feed to the writer, at most `window` of them at once.

Everything here runs on the event loop, except the call itself, which runs in the slots' threads. An item occupies
a place in the window from before it is read until its line is written, so that memory is bounded with an endless input,
a slow reader, or one slow item that others have to follow in order.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anyio

from director import JobState
from director._untrusted.numbers import number_in
from director.cli._run import records
from director.cli._run.io_threads import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director import Director, Job
    from director.cli._run.io_threads import Feed

    pass
    from director.cli._run.inputs import Item
    from director.cli._run.io_threads import Stream
    from director.cli._run.summary import Tally

_LAST_WORDS = 1.0  # s for writing finished items when the run is ended at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item whose call has ended.

    Args:
        item: The item.
        error: Its error; `None` for a success.
        device: Label of the device; `None` if it never ran.
        seconds: How long it ran; `None` if it never ran or its call still runs.
    """

    item: Item
    error: BaseException | None = None
    device: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a run.

    Args:
        window: Most items between input and output.
        ordered: Lines in the order of the input; else as the items are done.
        halt: Which failures end the run.
        traced: Whether error records contain tracebacks.
        apart: The calls are made in other processes, which can't check for a halt: only the event loop halts the run.
    """

    window: int
    ordered: bool
    halt: Halt
    traced: bool = False
    apart: bool = False


class Flow:
    """One run; the only writer of its tally.

    Args:
        director: Open; its queue holds at least `rules.window` jobs.
        function: Called as ``function(resource, value)``.
        options: Options of each job: `model`, `timeout`.
        stream: Where the lines are written, on a thread of its own.
        tally: Counts of the results.
        rules: The settings.
        failed: Called with each failure, on the loop.
        leave: Cancels the task that runs this, when it need not wait any longer.
    """

    def __init__(
        self,
        director: Director,
        function: Callable[[Any, Any], Any],
        options: dict[str, Any],
        stream: Stream,
        tally: Tally,
        rules: Rules,
        *,
        failed: Callable[[Outcome], None],
        leave: Callable[[], None],
    ) -> None:
        self._director = director
        self._call = _Call(function, rules.halt)
        self._function = function if rules.apart else self._call
        self._options = options
        self._tally = tally
        self._rules = rules
        self._failed = failed
        self._leave = leave
        self._places = asyncio.Semaphore(rules.window)
        self._order = _InputOrder() if rules.ordered else None
        self._writer = Writer(stream, self._written, self._broken)
        self._feed: Feed[Item] | None = None
        self._jobs: set[Job[Any]] = set()
        self._settled = asyncio.Event()  # set while no job is unfinished
        self._settled.set()
        self._over = False  # the last line was written: items that end later have no line and aren't counted
        self.halted = False
        self.read_error: OSError | None = None
        self.write_error: OSError | None = None

    async def run(self, feed: Feed[Item]) -> None:
        """Run all items; returns when the last line is written, or soon after `end`.

        Cancellation: running calls are left to the Director; finished items are written, if the reader accepts them at
        once.
        """
        self._feed = feed
        try:
            await self._take_items(feed)
            await self._settled.wait()
            await self._writer.finish()
        except asyncio.CancelledError:
            self.end()
            self._over = True
            with anyio.move_on_after(_LAST_WORDS, shield=True):
                await self._writer.finish()
            raise

    def end(self) -> None:
        """Take no more items and begin no more calls; running calls are finished and written. May be called again."""
        self._call.ended = True
        if self._feed is not None:
            self._feed.close()
        self._places.release()  # `_take_items` may wait for a place
        for job in list(self._jobs):
            if job.state is JobState.QUEUED:  # if it begins just now, `_Call` raises
                job.cancel()

    def set_total(self, total: int) -> None:
        """The input has been counted."""
        if self._tally.total is None:
            self._tally.total = total

    async def _take_items(self, feed: Feed[Item]) -> None:
        while True:
            await self._places.acquire()
            try:
                item = await anext(feed)
            except StopAsyncIteration:
                break
            except OSError as error:
                self.read_error = error
                break
            if self._call.ended:
                return
            self._begin(item)
        if not self._call.ended:
            self._tally.total = self._tally.taken

    def _begin(self, item: Item) -> None:
        self._tally.taken += 1
        if item.error is not None:
            self._conclude(Outcome(item, item.error))
            return
        job = self._director.submit(self._function, item.value, **self._options)
        self._jobs.add(job)
        self._settled.clear()
        job.add_done_callback(partial(self._finish, item))

    def _finish(self, item: Item, job: Job[Any]) -> None:
        self._jobs.discard(job)
        if self._over:
            return
        error = asyncio.CancelledError("the function raised it") if job.cancelled() else job.exception()
        if self._call.ended and isinstance(error, (asyncio.CancelledError, _NotStarted)):
            self._emit(item, None)
        else:
            device = None if job.device is None else job.device.label
            self._conclude(Outcome(item, error, device, job.ran), None if error else job.result())
        if not self._jobs:
            self._settled.set()

    def _conclude(self, outcome: Outcome, result: object = None) -> None:
        outcome, line = self._line(outcome, result)
        if outcome.device is not None and outcome.device not in self._tally.lanes:
            self._add_device(outcome.device)
        self._tally.count(outcome.error, outcome.device, outcome.seconds)
        self._emit(outcome.item, line)
        if outcome.error is not None:
            self._failed(outcome)
            self._check_halt()

    def _add_device(self, device: str) -> None:
        """Add a device that has joined since the start, as those of a cluster may."""
        counts = {stats.device.label: stats.slots for stats in self._director.stats().devices}
        self._tally.add_device(device, counts.get(device, 1))

    def _line(self, outcome: Outcome, result: object) -> tuple[Outcome, bytes]:
        item, device, seconds = outcome.item, outcome.device, outcome.seconds
        error = outcome.error
        if error is None:
            try:
                encoded = records.result_to_json(result)
                return outcome, records.success(item.index, item.text, encoded, device, seconds)
            except records.NotJSON as refusal:
                error = refusal
        line = records.failure(item.index, item.text, error, device, seconds, trace=self._rules.traced)
        return Outcome(item, error, device, seconds), line

    def _emit(self, item: Item, line: bytes | None) -> None:
        """Write the line when it is next in order; an item without a line only releases its place."""
        lines = [line] if self._order is None else self._order.ready(item.index, line)
        for text in lines:
            if text is None:
                self._places.release()
            else:
                self._writer.put(text)

    def _check_halt(self) -> None:
        if self.halted or not self._rules.halt.reached(self._tally.failed):
            return
        self.halted = True
        self.end()
        if self._rules.halt.when == "now":
            self._leave()

    def _written(self, lines: int) -> None:
        for _ in range(lines):
            self._places.release()

    def _broken(self, error: OSError) -> None:
        self.write_error = error
        self.end()
        self._leave()


class _NotStarted(Exception):
    """Raised in place of a call that would begin after the run has been ended."""


class _Call:
    """Calls the user's function until the run is ended; from then on no call begins.

    It counts failures on the slot's thread: when the event loop handles one, that slot has begun its next call already.
    """

    def __init__(self, function: Callable[[Any, Any], Any], halt: Halt) -> None:
        self._function = function
        self._halt = halt
        self._failed = 0
        self._lock = threading.Lock()
        self.ended = False
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, resource: Any, value: Any) -> Any:
        if self.ended:
            raise _NotStarted
        try:
            return self._function(resource, value)
        except BaseException:
            with self._lock:
                self._failed += 1
                self.ended = self.ended or self._halt.reached(self._failed)
            raise


class _InputOrder:
    """Holds lines back until all lines before them have been returned."""

    def __init__(self) -> None:
        self._waiting: dict[int, bytes | None] = {}
        self._next = 0

    def ready(self, index: int, line: bytes | None) -> Iterator[bytes | None]:
        """The lines that are next in order, now that line `index` is ready."""
        self._waiting[index] = line
        while self._next in self._waiting:
            yield self._waiting.pop(self._next)
            self._next += 1


@dataclass(frozen=True, slots=True)
class Halt:
    """When failures end a run.

    Args:
        when: ``"never"``: all items are tried. ``"soon"``: no new item starts, what runs is finished.
            ``"now"``: running items are abandoned.
        failures: The number of failed items at which it takes effect.
    """

    when: Literal["never", "soon", "now"] = "never"
    failures: int = 1

    def reached(self, failed: int) -> bool:
        """Whether `failed` items are enough."""
        return self.when != "never" and failed >= self.failures


def parse_halt(text: str) -> Halt:
    """``never``, ``soon``, ``now``, ``now,fail=3``, or ``3`` for ``soon,fail=3``.

    Raises:
        argparse.ArgumentTypeError: `text` is none of these.
    """
    if text == "never":
        return Halt()
    match = re.fullmatch(r"(?:(?P<when>soon|now)(?:,fail=(?P<count>[1-9][0-9]*))?)|(?P<bare>[1-9][0-9]*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of: never, soon, now, soon,fail=N, now,fail=N, N")
    failures = number_in(match["count"] or match["bare"] or "1")
    return Halt("now" if match["when"] == "now" else "soon", failures)
