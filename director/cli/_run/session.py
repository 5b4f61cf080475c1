"""One run from the opened Director to its exit status: progress, signals, the summary."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from director import _format
from director.cli import _status
from director.cli._console import print_error, trace_of
from director.cli._run.calls.call import BatchJobs, LimitedCall, PlainJobs
from director.cli._run.calls.flow import Flow
from director.cli._run.calls.rules import Outcome, RetryRule, Rules
from director.cli._run.input.decoders import Decoders
from director.cli._run.input.feed import Feed
from director.cli._run.output.records import message, type_name
from director.cli._run.progress.meter import SAMPLE, Meter
from director.cli._run.progress.summary import Summary, print_summary
from director.cli._run.progress.tally import Tally
from director.cli._run.progress.views import make_view
from director.cli._run.threads import start_thread
from director.cli._status import UsageError
from director.errors import DirectorError, DiscoveryError, NoDevices, PlacementError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from director import Director, Model
    from director.cli._run.calls.rules import Halt, Jobs
    from director.cli._run.input.sources import Source
    from director.cli._run.journal.destination import Destination
    from director.cli._run.journal.history import History
    from director.cli._run.journal.pending import Pending
    from director.cli._run.output.saved import Template
    from director.cli._run.output.sinks import Record

_SHOWN_FAILURES = 10  # the rest are only in the results
_STUCK = 2.0  # s for which every slot is held by a call that has timed out
_LONGEST_COMMAND = 2000  # characters


@dataclass(frozen=True, slots=True)
class Work:
    """What is run.

    Args:
        function: Called for each item.
        model: The model whose replica it gets; `None`: it gets the device.
        decode: Makes the value of an item, off the device's thread; `None`: the item has it.
        source: All items.
        pending: Those that are run.
        template: Names the files of results; `None`: they are in the records.
        history: What an earlier run has done that this one goes on with.
        config: What the results depend on.
    """

    function: Callable[[Any, Any], Any]
    model: Model[Any] | None
    decode: Callable[[Any], Any] | None
    source: Source
    pending: Pending
    template: Template | None
    history: History | None
    config: Mapping[str, Any]


class Session:
    """One run; made on its event loop. `run` may be called once."""

    def __init__(self, options: argparse.Namespace, director: Director, work: Work, destination: Destination) -> None:
        self._options = options
        self._director = director
        self._work = work
        self._destination = destination
        self._view = make_view("none" if options.quiet or options.json else options.progress)
        self._scope = anyio.CancelScope()  # cancelled to leave at once
        self._tally: Tally | None = None  # set, with the two below, when items can begin
        self._meter: Meter | None = None
        self._flow: Flow | None = None
        self._signal: int | None = None  # the first one received
        self._stuck_since: float | None = None
        self._is_stuck = False
        self._shown = 0

    async def run(self) -> int:
        """Run everything, then print the summary.

        Returns:
            The exit status.
        """
        with self._signals(), self._scope:
            director = await self._open()
            try:
                if await self._load(director):
                    await self._carry(director)
            finally:
                # Every item has its record or is given up: a call that still runs is not waited for.
                with anyio.CancelScope(shield=True):
                    await director.close(0)
        status, why = self._end()
        if status != _status.READER_GONE and not self._options.quiet:
            self._print_summary(why)
        return status

    async def _open(self) -> Director:
        try:
            await self._director.start()
        except (NoDevices, DiscoveryError, PlacementError, TypeError, ValueError) as error:
            raise UsageError(str(error)) from None
        return self._director

    async def _load(self, director: Director) -> bool:
        """Load the model before the first item, so that a failed load is reported once and not for each item."""
        model = self._work.model
        if model is None:
            return True
        try:
            await director.load(model)
        except Exception as error:  # noqa: BLE001 -- a loader may raise anything
            why = f"director run: {model.name} could not be loaded (see above); nothing was run"
            print_error(f"{trace_of(error)}\n{why}")
            return False
        return True

    async def _carry(self, director: Director) -> None:
        slots = {stats.device.label: stats.slots for stats in director.stats().devices}
        work, options = self._work, self._options
        self._tally = Tally(slots, counts=work.pending.counts)
        jobs = self._jobs(director)
        window = options.window or max(64, 8 * sum(slots.values()), jobs.window(sum(slots.values())))
        self._flow = self._make_flow(jobs, self._tally, window, sum(slots.values()))
        self._meter = Meter(director, self._tally, self._flow.ages)
        try:
            self._destination.begin(work.history, work.config, work.source.root, options.argv)
        except OSError as error:
            self._flow.write_error = error
            return
        if not options.quiet:
            _count(work.source, self._flow.set_total, self._flow.set_total_bytes)
        with self._view:
            watch = asyncio.create_task(self._watch(self._meter, self._flow))
            try:
                await self._flow.run(Feed(work.pending, ahead=window))
            finally:
                watch.cancel()
                self._meter.stop()

    def _jobs(self, director: Director) -> PlainJobs | BatchJobs:
        model, name = self._work.model, self._options.function.rpartition(":")[2]
        if self._options.batch_size is None:
            return PlainJobs(director, model, name)
        function, seconds = self._work.function, self._options.timeout.seconds
        if seconds is not None and self._options.executor == "process":
            function = LimitedCall(function, seconds)
        return BatchJobs(director, function, model, name, self._options.batch_size)

    def _make_flow(self, jobs: Jobs, tally: Tally, window: int, slots: int) -> Flow:
        options, work = self._options, self._work
        rules = Rules(
            window,
            options.ordered,
            options.halt,
            options.traceback,
            apart=options.ray is not None or options.executor == "process" or options.batch_size is not None,
            retry=RetryRule(options.retries, options.retry_on, options.backoff),
            limit=options.timeout,
            ended_apart=options.executor == "process",
            slots=slots,
            save=work.template,
        )
        loop = asyncio.get_running_loop()

        def changed(record: Record) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(flow.item_changed, record)

        flow = Flow(
            jobs,
            work.function,
            self._destination.sink(self._view.results_above, changed),
            tally,
            rules,
            failed=self._say_failure,
            leave=self._scope.cancel,
            decoders=self._decoders(),
        )
        return flow

    def _decoders(self) -> Decoders | None:
        if self._work.decode is None:
            return None
        return Decoders(self._work.decode, self._options.decode_threads or os.cpu_count() or 1)

    async def _watch(self, meter: Meter, flow: Flow) -> None:
        due = self._view.pause
        while True:
            await asyncio.sleep(SAMPLE)
            meter.sample()
            flow.check_limits()
            self._check_stuck(meter, flow)
            if meter.elapsed >= due:
                self._view.show(meter.read())
                due = meter.elapsed + self._view.pause

    def _check_stuck(self, meter: Meter, flow: Flow) -> None:
        """End the run if every slot has been held for a while by a call whose item is over: no other item can begin."""
        devices = self._director.stats().devices
        is_held = all(stats.busy == stats.slots for stats in devices) and not flow.running and flow.waiting > 0
        if not is_held or self._options.executor != "thread":
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = meter.elapsed
        elif meter.elapsed - self._stuck_since >= _STUCK and not self._is_stuck:
            self._is_stuck = True
            flow.end()
            self._view.say(
                "every slot is held by a call that has timed out, which a thread can't end: --executor process ends "
                "such calls"
            )

    def _say_failure(self, outcome: Outcome) -> None:
        self._shown += 1
        if self._shown <= _SHOWN_FAILURES:
            assert outcome.error is not None
            self._view.say(_format.plain(f"failed: {_shortened(outcome.item.text)}: {_one_line(outcome.error)}"))
        elif self._shown == _SHOWN_FAILURES + 1:
            self._view.say("further failures are only in the results")

    # ---- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _interrupt(self, number: int) -> None:
        """Drain at the first signal, leave at the second; leave at once if nothing runs yet.

        Who sends SIGTERM sends SIGKILL next, so running items get `--grace` seconds then.
        """
        again, self._signal = self._signal is not None, self._signal or number
        if again or self._flow is None or self._tally is None:
            self._scope.cancel()
            return
        self._flow.end()
        running = _format.counted(self._flow.running, "item")
        if number == signal.SIGTERM:
            asyncio.get_running_loop().call_later(self._options.grace, self._scope.cancel)
            limit = f"at most {self._options.grace:g} s"
        else:
            limit = "Ctrl-C again leaves at once"
        self._view.say(f"interrupted: waiting for {running} to finish; {limit}")
        if (command := self._go_on()) is not None:
            self._view.say(f"to go on: {command}")

    # ---- the end

    def _print_summary(self, why: str) -> None:
        if self._tally is not None and self._meter is not None:
            go_on = self._go_on() if self._tally.left > 0 else None
            summary = Summary(self._tally, self._meter.elapsed, why, self._destination.path, go_on)
            print_summary(summary, as_json=self._options.json)

    def _go_on(self) -> str | None:
        """The command that goes on with the run; `None` if it has no journal."""
        if self._destination.journalled is None:
            return None
        words = [word for word in self._options.argv if word not in ("--fresh", "--resume", "--resume=force")]
        command = shlex.join(["director", *words, "--resume"])
        return command if len(command) <= _LONGEST_COMMAND else "the same command with --resume"

    def _end(self) -> tuple[int, str]:
        """The exit status, and why the run ended."""
        flow, tally = self._flow, self._tally
        if self._signal is not None:
            return 128 + self._signal, "interrupted"
        if flow is None or tally is None:
            return _status.FAILED, "the model could not be loaded"
        if isinstance(flow.write_error, BrokenPipeError):
            return _status.READER_GONE, "the reader of the results has gone"
        if flow.write_error is not None:
            return _status.FAILED, f"the results can't be written: {flow.write_error}"
        if flow.read_error is not None:
            return _status.FAILED, f"the input can't be read on: {flow.read_error}"
        if flow.director_error is not None:
            return _status.FAILED, f"the run can't go on: {flow.director_error}"
        if self._is_stuck:
            return _status.FAILED, "every slot is held by a call that has timed out"
        if flow.halted:
            return _status.HALTED, f"halted after {_halted_by(self._options.halt, tally)}"
        return (_status.FAILED if tally.failed else _status.DONE), "done"


def _halted_by(halt: Halt, tally: Tally) -> str:
    """``3 failures``: what the halt has counted."""
    if halt.cause == "success":
        return f"{_format.count(tally.succeeded)} that succeeded"
    if halt.cause == "done":
        return _format.counted(tally.done, "item")
    return _format.counted(tally.failed, "failure")


def _count(source: Source, know: Callable[[int], None], know_bytes: Callable[[int], None]) -> None:
    """Count the input on a thread of its own: a large file takes seconds, and items don't wait for that."""
    loop = asyncio.get_running_loop()

    def work() -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the file is gone, or the run is over and the loop closed
            if (total := source.count()) is not None:
                loop.call_soon_threadsafe(know, total)
            if (size := source.measure()) is not None:
                loop.call_soon_threadsafe(know_bytes, size)

    with contextlib.suppress(DirectorError):  # without a thread the run goes on without a total
        start_thread(work, "director-count")


def _shortened(text: bytes) -> str:
    """An item's JSON, without its middle if it is long: a path keeps the name of its file."""
    shown = text.decode("utf-8", "replace")
    return shown if len(shown) <= 60 else f"{shown[:17]}...{shown[-40:]}"


def _one_line(error: BaseException) -> str:
    lines = message(error).splitlines() or [""]
    return f"{type_name(error)}: {lines[0]}".removesuffix(": ")
