"""Items through the Director: from the feed to the writer, at most `window` of them at once.

Everything here runs on the event loop, except the call itself, which runs in the slots' threads. An item occupies
a place in the window from when it is taken until its record is written, so that memory is bounded with an endless
input, a slow reader, or one slow item that others have to follow in order.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from typing import TYPE_CHECKING, Any

import anyio

from director import JobState
from director.cli._run.calls.call import Call, LimitedCall, NotStarted, WatchedCall, cause_of
from director.cli._run.calls.rules import Median, Outcome
from director.cli._run.output import records
from director.cli._run.output.sinks import Record
from director.cli._run.output.writer import InputOrder, Writer
from director.cli._run.strict_json import NotJSON, result_to_json, to_json
from director.errors import DirectorError, JobTimeout, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from director import Device, Job
    from director.cli._run.calls.rules import Jobs, Rules
    from director.cli._run.input.decoders import Decoders
    from director.cli._run.input.feed import Feed
    from director.cli._run.input.items import Item
    from director.cli._run.output.sinks import Sink
    from director.cli._run.progress.tally import Tally

_LAST_WORDS = 1.0  # s for writing finished items when the run is ended at once


class Flow:
    """One run; the only writer of its tally.

    Args:
        jobs: Submits jobs, to a queue that holds at least `rules.window` of them.
        function: Called as ``function(resource, value)``.
        sink: Where the records are written, on a thread of its own.
        tally: Counts of the results.
        rules: The settings.
        failed: Called with each failure, on the loop.
        leave: Cancels the task that runs this, when it need not wait any longer.
        decoders: Make the values of the items on threads of their own; `None`: the items have them.
    """

    def __init__(
        self,
        jobs: Jobs,
        function: Callable[[Any, Any], Any],
        sink: Sink,
        tally: Tally,
        rules: Rules,
        *,
        failed: Callable[[Outcome], None],
        leave: Callable[[], None],
        decoders: Decoders | None = None,
    ) -> None:
        self._submit = jobs.submit
        self._slots_of = jobs.slots_of
        self._call = Call(function, rules.halt, counts=not rules.retry.retries)
        self._function = function if rules.apart else self._call
        self._tally = tally
        self._rules = rules
        self._failed = failed
        self._leave = leave
        self._decoders = decoders
        self._median = Median() if rules.limit.percent is not None else None
        self._timeout = rules.limit.seconds
        # Without a limit of time yet, no more items begin than run at once.
        waits = self._median is not None and self._timeout is None
        self._places = min(rules.window, rules.slots) if waits else rules.window
        self._watched: dict[Job[Any], WatchedCall] = {}  # which began without a limit
        self._used = 0
        self._room = asyncio.Event()  # set while places are free
        self._room.set()
        self._settled = asyncio.Event()  # set while no place is in use
        self._settled.set()
        self._order = InputOrder() if rules.ordered else None
        self._writer = Writer(sink, self._written, self._broken, self._dropped)
        self._feed: Feed[Item] | None = None
        self._running: dict[Job[Any], Item] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}  # of items that are tried again later, by their number
        self._avoided: dict[int, list[Device]] = {}
        self._late: set[Job[Any]] = set()  # cancelled, because their time was up
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._over = False  # the last record was written: items that end later have none and aren't counted
        self.halted = False
        self.read_error: OSError | None = None
        self.write_error: OSError | None = None
        self.director_error: DirectorError | None = None

    async def run(self, feed: Feed[Item]) -> None:
        """Run all items; returns when the last record is written, or soon after `end`.

        Cancellation: running calls are left to the Director; finished items are written, if the reader accepts them at
        once.
        """
        self._feed = feed
        try:
            await self._take_items(feed)
            await self._settled.wait()
            await self._writer.finish()
        except BaseException:
            self.end()
            self._over = True
            with anyio.move_on_after(_LAST_WORDS, shield=True):
                await self._writer.finish()
            raise
        finally:
            if self._decoders is not None:
                self._decoders.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def end(self) -> None:
        """Take no more items and begin no more calls; running calls are finished and written. May be called again."""
        self._call.ended = True
        if self._feed is not None:
            self._feed.close()
        self._room.set()  # `_take_items` may wait for it
        for item_index, timer in list(self._timers.items()):
            timer.cancel()
            del self._timers[item_index]
            self._emit(item_index, None)
        if self._decoders is not None:
            for item in self._decoders.drop():
                self._emit(item.number, None)
        for job in list(self._running):
            if job.state is JobState.QUEUED:  # if it begins just now, `Call` raises
                job.cancel()

    def set_total(self, total: int) -> None:
        """The input has been counted."""
        if self._tally.total is None:
            self._tally.total = total

    def set_total_bytes(self, size: int) -> None:
        """The input has been measured."""
        self._tally.total_bytes = size

    @property
    def running(self) -> int:
        """Items whose calls run and are awaited."""
        return sum(job.state is JobState.RUNNING for job in self._running)

    @property
    def waiting(self) -> int:
        """Items that are queued."""
        return len(self._running) - self.running

    def ages(self) -> Iterator[tuple[float, int]]:
        """Of each call that runs, for how many seconds, and the bytes of its item."""
        now = time.perf_counter()
        for job, item in self._running.items():
            if (age := _age(job, item, now)) is not None:
                yield age, item.size

    def check_limits(self) -> None:
        """End the items that run longer than the median allows and began before it was known, and hung decoders."""
        if self._decoders is not None and self._rules.limit.seconds is not None:
            try:
                self._decoders.give_up(self._rules.limit.seconds)
            except DirectorError as error:
                self.director_error = error
                self.end()
        if self._timeout is None or self._median is None:
            return
        for watched in self._watched.values():
            watched.end_if_late(self._timeout)
        if self._rules.ended_apart:
            return
        now = time.perf_counter()
        for job, item in list(self._running.items()):
            if (_age(job, item, now) or 0.0) > self._timeout:
                self._late.add(job)
                job.cancel()

    def item_changed(self, record: Record) -> None:
        """The file of an item has changed since it was read: its record was not written, and it is run again."""
        self._tally.take_back(record.item.size, is_failed=record.is_failed)
        self._used += 1  # its place is released, as if it had been written
        record.item.is_repeated = True
        if self._call.ended:
            self._release(1)
        else:
            self._start(record.item)

    async def _take_items(self, feed: Feed[Item]) -> None:
        while not self._call.ended:
            while self._used >= self._places:
                self._room.clear()
                await self._room.wait()
                if self._call.ended:
                    return
            try:
                items = await feed.take(self._places - self._used)
            except OSError as error:
                self.read_error = error
                break
            if not items:
                break
            if self._call.ended:
                return
            for item in items:
                self._begin(item)
        if not self._call.ended:
            self._tally.know_taken()

    def _begin(self, item: Item) -> None:
        item.number = self._tally.taken
        self._tally.taken += 1
        self._used += 1
        self._settled.clear()
        if item.error is not None:
            self._conclude(Outcome(item, item.error))
        else:
            self._start(item)

    def _start(self, item: Item) -> None:
        if self._decoders is None:
            self._send(item, item.value)
        else:
            self._decoders.put(item, self._decoded)

    def _decoded(self, item: Item, value: Any, error: BaseException | None) -> None:
        if self._over:
            return
        if self._call.ended:
            self._emit(item.number, None)
        elif error is not None:
            self._fail(Outcome(item, error), None)
        else:
            self._send(item, value)

    def _send(self, item: Item, value: Any) -> None:
        avoided = self._avoided.get(item.number, ()) if self._avoided else ()
        function, timeout = self._function, self._timeout
        watched = None
        if self._rules.ended_apart:
            if timeout is not None:
                function, timeout = LimitedCall(function, timeout), None
            elif self._median is not None:
                function = watched = WatchedCall(function, f"{self._folder()}/{item.number}")
        item.sent_at = time.perf_counter()
        try:
            job = self._submit(function, value, timeout, avoided)
        except PlacementError as error:
            self._conclude(Outcome(item, error))
            return
        except DirectorError as error:  # it takes no more jobs: this item and the rest are for another run
            self.director_error = error
            self._emit(item.number, None)
            self.end()
            return
        self._running[job] = item
        if watched is not None:
            self._watched[job] = watched
        job.add_done_callback(self._finish)

    def _finish(self, job: Job[Any]) -> None:
        item = self._running.pop(job)
        self._watched.pop(job, None)
        if self._over:
            if not job.cancelled():
                job.exception()  # marks it as retrieved: asyncio would log the errors of these calls
            return
        device, seconds = job.device, job.ran
        label = None if device is None else device.label
        if job.state is JobState.SUCCEEDED:
            if self._median is not None and seconds is not None:
                self._add_time(seconds)
            self._conclude(Outcome(item, None, label, seconds), job.result())
            return
        error = asyncio.CancelledError("the function raised it") if job.cancelled() else job.exception()
        if job in self._late:
            self._late.discard(job)
            error = JobTimeout("running")
        elif self._call.ended and isinstance(error, (asyncio.CancelledError, NotStarted)):
            self._emit(item.number, None)
            return
        assert error is not None
        self._fail(Outcome(item, cause_of(error), label, seconds), device)

    def _fail(self, outcome: Outcome, device: Device | None) -> None:
        """Try the item again, or conclude that it failed."""
        item, error = outcome.item, outcome.error
        assert error is not None
        pause = self._rules.retry.pause(error, item.attempts + 1)
        if pause is None:
            self._conclude(outcome)
            return
        item.attempts += 1
        self._writer.note_attempt(item.key, item.attempts)
        if self._call.ended:
            self._emit(item.number, None)
            return
        if device is not None:
            self._avoided.setdefault(item.number, []).append(device)
        self._timers[item.number] = asyncio.get_running_loop().call_later(pause, self._again, item)

    def _again(self, item: Item) -> None:
        del self._timers[item.number]
        self._start(item)

    def _folder(self) -> str:
        """Of the files of watched calls."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="director-run-")
        return self._temporary.name

    def _add_time(self, seconds: float) -> None:
        assert self._median is not None
        self._median.add(seconds)
        median = self._median.read()
        if median is not None:
            limit = self._rules.limit
            self._timeout = min(max(median * (limit.percent or 0.0) / 100, 1e-3), limit.seconds or math.inf)
            self._places = self._rules.window
            self._room.set()

    def _conclude(self, outcome: Outcome, result: object = None) -> None:
        outcome, record = self._record(outcome, result)
        tally, device = self._tally, outcome.device
        if device is not None and device not in tally.lanes:
            tally.add_device(device, self._slots_of(device))
        tally.count(outcome.error, device, outcome.seconds, outcome.item.key, outcome.item.size)
        if self._avoided:
            self._avoided.pop(outcome.item.number, None)
        self._emit(outcome.item.number, record)
        if outcome.error is not None:
            self._failed(outcome)
        if self._rules.halt.when != "never":
            self._check_halt()

    def _record(self, outcome: Outcome, result: object) -> tuple[Outcome, Record]:
        item, device, seconds, save = outcome.item, outcome.device, outcome.seconds, self._rules.save
        error = outcome.error
        if error is None:
            try:
                if save is None:
                    encoded = result_to_json(result)
                    line = records.success(item.index, item.text, encoded, device, seconds)
                    return outcome, Record(line, item, item.attempts + 1, False, item.is_superseding)
                content, target = save.content(result), save.target(item)
                line = records.saved(item.index, item.text, to_json(target), device, seconds)
                return outcome, Record(line, item, item.attempts + 1, False, item.is_superseding, content, target)
            except (NotJSON, ValueError) as refusal:
                error = refusal
        line = records.failure(item.index, item.text, error, device, seconds, trace=self._rules.traced)
        return Outcome(item, error, device, seconds), Record(line, item, item.attempts + 1, True, item.is_superseding)

    def _emit(self, number: int, record: Record | None) -> None:
        """Write the record when it is next in order; an item without a record only releases its place."""
        if self._order is None:
            if record is None:
                self._release(1)
            else:
                self._writer.put(record)
            return
        for each in self._order.ready(number, record):
            if each is None:
                self._release(1)
            else:
                self._writer.put(each)

    def _check_halt(self) -> None:
        tally = self._tally
        if self.halted or not self._rules.halt.reached(tally.failed, tally.succeeded, tally.to_do):
            return
        self.halted = True
        self.end()
        if self._rules.halt.when == "now":
            self._leave()

    def _written(self, number: int) -> None:
        self._release(number)

    def _dropped(self, records: Sequence[Record]) -> None:
        """Results that could not be written don't count: they are lost."""
        for record in records:
            self._tally.take_back(record.item.size, is_failed=record.is_failed)

    def _release(self, places: int) -> None:
        self._used -= places
        if self._used < self._places:
            self._room.set()
        if not self._used:
            self._settled.set()

    def _broken(self, error: OSError) -> None:
        self.write_error = error
        self.end()
        self._leave()


def _age(job: Job[Any], item: Item, now: float) -> float | None:
    """For how many seconds a call has run; `None` if it does not."""
    waited = job.waited
    return None if waited is None or job.state is not JobState.RUNNING else now - item.sent_at - waited
