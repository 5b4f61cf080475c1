"""One `director run` from its arguments to its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from director import Director, Model, _format
from director.cli import _status
from director.cli._console import print_error, trace_of
from director.cli._run import target
from director.cli._run.flow import Flow, Outcome, Rules
from director.cli._run.inputs import Source, open_source
from director.cli._run.io_threads import Descriptor, Feed, OnTerminal, Stream, start_thread
from director.cli._run.meter import SAMPLE, Meter
from director.cli._run.outputs import Outputs
from director.cli._run.progress import make_view
from director.cli._run.records import message, type_name
from director.cli._run.summary import Summary, Tally, print_summary
from director.cli._status import UsageError
from director.errors import DirectorError, DiscoveryError, NoDevices, PlacementError
from director.timeline import Timeline

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    pass
    from director.events import Hook
    from director.ray import RayExecutor

_SHOWN_FAILURES = 10  # the rest are only in the results


def run_all(options: argparse.Namespace) -> int:
    """Run the function over the whole input.

    Returns:
        The exit status.

    Raises:
        UsageError: The arguments are wrong; nothing ran.
    """
    outputs = Outputs(options.output, options.report)
    source = open_source(options.inputs, options.kind, outputs, null=options.null)
    with _standard_output(options.output) as number:
        function = target.find_function(options.function, resource="replica" if options.model else "device")
        model = None if options.model is None else _model(options.model)
        outputs.check(source.paths)  # before any file is opened
        output = Descriptor(_create(options.output) if number is None else number)
        report = None if options.report is None else _report(options)
        director = _director(options, [] if report is None else [report.timeline], function, model)

        async def session() -> int:
            return await Session(options, director, function, model, source, output).run()

        status = anyio.run(session)
        return status if report is None or report.write() else status or _status.FAILED


class Session:
    """One run; made on its event loop. `run` may be called once.

    Args:
        options: The options of the command line.
        director: Not started.
        function: Called for each item.
        model: The model whose replica it gets; `None`: it gets the device.
        source: The items.
        output: Where results are written.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        director: Director,
        function: Callable[[Any, Any], Any],
        model: Model[Any] | None,
        source: Source,
        output: Descriptor,
    ) -> None:
        self._options = options
        self._director = director
        self._function = function
        self._model = model
        self._source = source
        self._view = make_view(quiet=options.quiet or options.json)
        self._output = output
        self._stream: Stream = OnTerminal(self._view.results_above() or output) if output.on_terminal else output
        self._scope = anyio.CancelScope()  # cancelled to leave at once
        self._tally: Tally | None = None  # set, with the two below, when items can begin
        self._meter: Meter | None = None
        self._flow: Flow | None = None
        self._signal: int | None = None  # the first one received
        self._shown = 0

    async def run(self) -> int:
        """Run everything, then print the summary.

        Returns:
            The exit status.
        """
        with self._signals(), self._scope:
            async with contextlib.AsyncExitStack() as stack:
                director = await self._open(stack)
                if await self._load(director):
                    await self._carry(director)
        status, why = self._end()
        if status != _status.READER_GONE and not self._options.quiet:
            self._print_summary(why)
        return status

    async def _open(self, stack: contextlib.AsyncExitStack) -> Director:
        try:
            return await stack.enter_async_context(self._director)
        except (NoDevices, DiscoveryError, PlacementError, TypeError, ValueError) as error:
            raise UsageError(str(error)) from None

    async def _load(self, director: Director) -> bool:
        """Load the model before the first item, so that a failed load is reported once and not for each item."""
        if self._model is None:
            return True
        try:
            await director.load(self._model)
        except Exception as error:  # noqa: BLE001 -- a loader may raise anything
            why = f"director run: {self._model.name} could not be loaded (see above); nothing was run"
            print_error(f"{trace_of(error)}\n{why}")
            return False
        return True

    async def _carry(self, director: Director) -> None:
        slots = {stats.device.label: stats.slots for stats in director.stats().devices}
        window = self._options.window or max(64, 8 * sum(slots.values()))
        self._tally = Tally(slots)
        self._meter = Meter(director, self._tally)
        self._flow = self._make_flow(director, self._tally, window)
        if self._options.output is not None:
            self._output.clear()
        if not self._options.quiet:
            _count(self._source, self._flow.set_total)
        with self._view:
            watch = asyncio.create_task(self._watch(self._meter))
            try:
                await self._flow.run(Feed(self._source, ahead=window))
            finally:
                watch.cancel()
                self._meter.stop()

    def _make_flow(self, director: Director, tally: Tally, window: int) -> Flow:
        options = self._options
        return Flow(
            director,
            self._function,
            {"model": self._model, "timeout": options.timeout, "name": options.function.rpartition(":")[2]},
            self._stream,
            tally,
            Rules(window, options.ordered, options.halt, options.traceback, apart=options.ray is not None),
            failed=self._say_failure,
            leave=self._scope.cancel,
        )

    async def _watch(self, meter: Meter) -> None:
        due = self._view.pause
        while True:
            await asyncio.sleep(SAMPLE)
            meter.sample()
            if meter.elapsed >= due:
                self._view.show(meter.read())
                due = meter.elapsed + self._view.pause

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
        """Drain at the first signal, leave at the second; leave at once if nothing runs yet."""
        again, self._signal = self._signal is not None, self._signal or number
        if again or self._flow is None or self._tally is None:
            self._scope.cancel()
            return
        self._flow.end()
        running = sum(stats.busy for stats in self._director.stats().devices)
        self._view.say(
            f"interrupted: waiting for {_format.counted(running, 'item')} to finish; Ctrl-C again leaves at once"
        )

    # ---- the end

    def _print_summary(self, why: str) -> None:
        if self._tally is not None and self._meter is not None:
            summary = Summary(self._tally, self._meter.elapsed, why, self._options.output)
            print_summary(summary, as_json=self._options.json)

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
        if flow.halted:
            return _status.HALTED, f"halted after {_format.counted(tally.failed, 'failure')}"
        return (_status.FAILED if tally.failed else _status.DONE), "done"


def _report(options: argparse.Namespace) -> Report:
    pass

    return Report(options.report, f"director run {options.function}")


def _director(
    options: argparse.Namespace, hooks: list[Hook], function: Callable[[Any, Any], Any], model: Model[Any] | None
) -> Director:
    try:
        executor: Any = "thread" if options.ray is None else _in_cluster(options.ray, function, model)
        return Director(options.devices, slots=options.slots, executor=executor, max_queue=None, hooks=hooks)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def _in_cluster(address: str, function: Callable[[Any, Any], Any], model: Model[Any] | None) -> RayExecutor:
    """The executor for a cluster.

    The modules of the function and the model are sent to its nodes, which may not have them.
    """
    from director.ray import RayExecutor, send_by_value

    executor = RayExecutor(address=address)
    for each in (function, None if model is None else model.load):
        module = sys.modules.get(getattr(each, "__module__", ""))
        if module is not None and module.__name__ != "__main__":
            try:
                send_by_value(module)
            except ImportError:
                raise UsageError("--ray needs Ray: pip install 'gpu-director[ray]'") from None
    return executor


def _model(spec: str) -> Model[Any]:
    """The `Model` that `spec` names, or one made of the loader that it names."""
    found = target.find(spec)
    if isinstance(found, Model):
        return found
    if not callable(found):
        raise UsageError(f"{spec} is neither a Model nor a loader, a function of a device: {found!r}")
    return Model(found, name=spec.rpartition(":")[2])


@contextlib.contextmanager
def _standard_output(path: str | None) -> Iterator[int | None]:
    """A descriptor for the results where they go to the standard output; `None` if they go to a file.

    The standard output is then used only for results: what the user's code and libraries print goes to the standard
    error.
    """
    if path is not None:
        yield None
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield os.dup(stdout)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _create(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from None


def _count(source: Source, know: Callable[[int], None]) -> None:
    """Count the input on a thread of its own: a large file takes seconds, and items don't wait for that."""
    loop = asyncio.get_running_loop()

    def work() -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the file is gone, or the run is over and the loop closed
            total = source.count()
            if total is not None:
                loop.call_soon_threadsafe(know, total)

    with contextlib.suppress(DirectorError):  # without a thread the run goes on without a total
        start_thread(work, "director-count")


def _shortened(text: bytes) -> str:
    shown = text.decode("utf-8", "replace")
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _one_line(error: BaseException) -> str:
    lines = message(error).splitlines() or [""]
    return f"{type_name(error)}: {lines[0]}".removesuffix(": ")


class Report:
    """Records a run and writes a report.

    Args:
        path: A page if it ends in ``.html``, a trace for Perfetto if in ``.json``.
        name: The title.

    Raises:
        UsageError: The path has another ending, or can't be written.
    """

    def __init__(self, path: str, name: str) -> None:
        timeline = self.timeline = Timeline(name=name)
        kinds = {".html": timeline.report, ".json": timeline.save}
        self._path = path
        try:
            self._save = kinds[Path(path).suffix.lower()]
        except KeyError:
            raise UsageError(f"--report takes a page.html or a trace.json, not {path}") from None
        try:  # checked before the run; the file keeps its contents until the report is written
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from None

    def write(self) -> bool:
        """Write it; prints an error and returns False if that fails."""
        try:
            self._save(self._path)
        except OSError as error:
            print_error(f"director run: {self._path} can't be written: {error.strerror}")
            return False
        return True
