"""One `director run` from its arguments to its exit status: what it reads, writes and runs, then the session."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import anyio

from director import Director, HealthRules, Model
from director.cli import _status
from director.cli._console import print_error
from director.cli._run import target
from director.cli._run.calls.rules import TimeLimit
from director.cli._run.input.overlap import Outputs, journal_of
from director.cli._run.input.sources import Source, open_source
from director.cli._run.journal import syntax
from director.cli._run.journal.destination import Destination
from director.cli._run.journal.pending import Choice, Pending, check_ids
from director.cli._run.journal.plan import Wish, config_of, earlier_run
from director.cli._run.output.saved import Template
from director.cli._run.progress.report import Report
from director.cli._run.session import Session, Work
from director.cli._status import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from director.cli._run.journal.history import History
    from director.events import Hook
    from director.ray import RayExecutor

_TIMEOUTS_IN_A_ROW = 20  # before a device goes into quarantine


def run_all(options: argparse.Namespace) -> int:
    """Run the function over the whole input.

    Returns:
        The exit status.

    Raises:
        UsageError: The arguments are wrong; nothing ran.
    """
    _check(options)
    if options.merge:
        from director.cli._run.journal.merge import merge

        return merge(options)
    path = _output_path(options)
    written = {
        "-o": path,
        "the journal": None if path is None else journal_of(path),
        "--report": options.report,
        "--failures": options.failures,
    }
    outputs = Outputs(written, options.out_dir)
    source = open_source(
        options.inputs or [],
        options.kind,
        outputs,
        null=options.null,
        lists=options.files_from,
        id_field=options.id_field,
        root=None if path is None or options.fresh else syntax.root_of(journal_of(path)),
    )
    with _standard_output(path) as number:
        return _run(options, source, outputs, path, number)


def _run(options: argparse.Namespace, source: Source, outputs: Outputs, path: str | None, stdout: int | None) -> int:
    function = target.find_function(options.function, resource="replica" if options.model else "device")
    model = None if options.model is None else _model(options.model)
    decode = None if options.decode is None else target.find_decoder(options.decode)
    outputs.check(source.paths)  # before any file is opened
    template = None
    if options.out_dir is not None:
        template = Template(options.out_dir, options.template, is_files=options.kind == "files")
    _check_items(options, source, template)
    config = config_of(options, {"function": function, "model": getattr(model, "load", None), "decode": decode})
    wish = Wish(options.resume, options.retry_failed, options.fresh)
    with Destination(path, stdout, template, edits=options.in_place) as destination:
        history = None
        if destination.journalled is not None:
            history = earlier_run(destination.journalled, path or "", wish, config)
        elif wish.resume != "no" or wish.retry_failed or options.failures is not None:
            raise UsageError(f"{path} is no regular file, so it has no journal that says what is done")
        pending = Pending(source, _choice(options, source, template, history, destination))
        if options.dry_run:
            from director.cli._run.progress.dry_run import print_plan

            return print_plan(options, stdout, pending, source, model, template, history)
        report = None if options.report is None else Report(options.report, f"director run {options.function}")
        director = _director(options, [] if report is None else [report.timeline], function, model)
        work = Work(function, model, decode, source, pending, template, history, config)

        async def session() -> int:
            return await Session(options, director, work, destination).run()

        status = anyio.run(session)
    if options.failures is not None and path is not None and not destination.write_failures(options.failures):
        status = status or _status.FAILED
    return status if report is None or report.write() else status or _status.FAILED


def _check(options: argparse.Namespace) -> None:
    """Refuse arguments that don't go together."""
    if options.output == "-":
        options.output = None
    no_file = options.output is None and options.out_dir is None
    for flag, name in (
        (options.resume != "no", "--resume"),
        (options.retry_failed, "--retry-failed"),
        (options.failures is not None, "--failures"),
        (options.merge, "--merge"),
    ):
        if flag and no_file:
            raise UsageError(f"{name} needs --output FILE: only a file has a journal that says what is done")
    if options.template is not None and options.out_dir is None:
        raise UsageError("--template names the files of --out-dir DIR")
    if options.skip_existing and options.out_dir is None:
        raise UsageError("--skip-existing leaves files of --out-dir DIR alone")
    if options.files_from and options.kind != "files":
        raise UsageError("--files-from lists files, and the items are not files")
    if options.id_field is not None and options.kind not in ("jsonl", "csv"):
        raise UsageError("--id-field names a field of the records of --jsonl or the rows of --csv")
    if options.ray is not None and options.executor is not None:
        raise UsageError("--ray has its own way to run calls: leave --executor out")
    if options.fresh and options.retry_failed:
        raise UsageError("--fresh replaces the results, so there are no failures to try again")
    if options.batch_size is not None and options.timeout.percent is not None:
        raise UsageError("--timeout of the median needs the time of each item, and a batch has only one: give seconds")


def _output_path(options: argparse.Namespace) -> str | None:
    path: str | None = options.output
    if path is None and options.out_dir is not None:
        path = f"{options.out_dir.rstrip('/')}.jsonl"
    if path is not None and options.shard is not None:
        path = shard_path(path, *options.shard)
    return path


def shard_path(path: str, number: int, shards: int) -> str:
    """The output of a shard."""
    return f"{path}.{number}-of-{shards}"


def _check_items(options: argparse.Namespace, source: Source, template: Template | None) -> None:
    """Refuse items that can't be told apart, where the input can be read twice."""
    if source.left_out and not options.quiet:
        first, more = source.left_out[0], len(source.left_out) - 1
        rest = f" and {more} more" if more else ""
        print_error(f"left out of the input, because this run writes it: {first}{rest}")
    if source.can_repeat and options.id_field is not None:
        check_ids(source)
    if source.can_repeat and template is not None:
        template.check(Pending(source, Choice()))


def _choice(
    options: argparse.Namespace,
    source: Source,
    template: Template | None,
    history: History | None,
    destination: Destination,
) -> Choice:
    goes_on = history is not None
    return Choice(
        history,
        rest=not options.retry_failed or options.resume != "no" or not goes_on,
        failures=options.retry_failed,
        shard=options.shard,
        unique=options.id_field is not None and not source.can_repeat,
        named=destination.journalled is not None or options.shard is not None or options.out_dir is not None,
        template=template,
        skip_existing=options.skip_existing,
    )


def _director(
    options: argparse.Namespace, hooks: list[Hook], function: Callable[[Any, Any], Any], model: Model[Any] | None
) -> Director:
    is_limited = options.timeout != TimeLimit()
    options.executor = options.executor or ("process" if is_limited and options.ray is None else "thread")
    # A child that is ended by a time limit says nothing of its device, and several may be, one after the other.
    health = HealthRules(failures=_TIMEOUTS_IN_A_ROW) if is_limited and options.executor == "process" else None
    try:
        executor: Any = options.executor if options.ray is None else _in_cluster(options.ray, function, model)
        return Director(
            options.devices, slots=options.slots, executor=executor, max_queue=None, hooks=hooks, health=health
        )
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
