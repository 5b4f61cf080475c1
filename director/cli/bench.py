"""`director bench`: every contender on the same work, and on request the goals with the measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.cli._console import print_error, print_json, print_text
from director.cli._status import DONE, FAILED, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Iterable, Sequence

    from director.cli._bench.catalog import Experiment
    from director.cli._bench.goals import Goal

DESCRIPTION = """\
Measure what it costs to run blocking jobs from asyncio, by a Director and by its alternatives. Contenders do the
same work alternately, so ratios are comparable although times depend on the machine. Run nothing else meanwhile. A full
run takes about twenty minutes, a quick one about a minute.
"""


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command to those of `director`."""
    parser = subparsers.add_parser("bench", help="measure a Director and its alternatives", description=DESCRIPTION)
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: ArgumentParser) -> None:
    """Add the options of a command that runs experiments."""
    parser.add_argument("--quick", action="store_true", help="less work, for a first impression")
    parser.add_argument("--only", action="append", metavar="NAME", default=[], help="this experiment; may be repeated")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="every sample as one JSON document")
    form.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    parser.add_argument("--goals", action="store_true", help="compare the measurements with the project's goals")
    parser.add_argument("--guard", action="store_true", help="exit with status 1 where a ratio is three times the goal")
    parser.add_argument("--list", action="store_true", help="name the experiments and run none")


def run(args: Namespace) -> int:
    """Run the experiments of `director bench`; see `run_experiments`."""
    from director.cli._bench.catalog import EXPERIMENTS
    from director.cli._bench.goals import GOALS

    return run_experiments(args, EXPERIMENTS, GOALS)


def run_experiments(args: Namespace, experiments: Sequence[Experiment], goals: Iterable[Goal]) -> int:
    """Run the experiments that `args` choose; results go to stdout, progress to stderr.

    Returns:
        0 when all experiments ran, whatever they measured; 1 when one died, or with `--guard` when a goal was missed
        by far.

    Raises:
        UsageError: There is no experiment of a name given with `--only`.
    """
    from director.cli._bench.catalog import ExperimentDied
    from director.cli._bench.suite import by_name

    try:
        chosen = by_name(args.only, experiments)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.list:
        _print_names(chosen)
        return DONE
    try:
        return _measure_and_print(args, chosen, goals)
    except ExperimentDied as error:
        print_error(f"director bench: {error}")
        return FAILED


def _print_names(experiments: Sequence[Experiment]) -> None:
    width = max(len(experiment.name) for experiment in experiments)
    for experiment in experiments:
        print_text(f"{experiment.name.ljust(width)}  {experiment.question}")


def _measure_and_print(args: Namespace, experiments: Sequence[Experiment], goals: Iterable[Goal]) -> int:
    from director.cli._bench.report import document, markdown, text
    from director.cli._bench.sheet import Effort
    from director.cli._bench.suite import run_suite

    outcome = run_suite(experiments, goals, Effort.QUICK if args.quick else Effort.FULL)
    if args.json:
        print_json(document(outcome, goals=args.goals), indent=2)
    else:
        print_text((markdown if args.markdown else text)(outcome, goals=args.goals))
    missed = [verdict.goal.text for verdict in outcome.verdicts if verdict.gross] if args.guard else []
    for goal in missed:
        print_error(f"director bench: not reached, by far: {goal}")
    return FAILED if missed else DONE
