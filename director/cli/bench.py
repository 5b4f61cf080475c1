"""`director bench`: every contender on the same work, and the goals beside what was measured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from director._numbers import MOST_SECONDS
from director.cli._numbers import number_of, whole_number
from director.cli._status import DONE, FAILED, UsageError
from director.cli._terminal import complain, say, say_json

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    from director._bench.catalog import Experiment

DESCRIPTION = """\
Measure what it costs to run blocking jobs from asyncio, by a Director and by what people use without one. Contenders
take turns on the same work, so the ratios are comparable where the times depend on the machine. Let nothing else run
meanwhile. A full run takes about half an hour, a quick one little more than a minute."""


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command to those of `director`."""
    parser = subparsers.add_parser(
        "bench", help="measure a Director beside what people use without one", description=DESCRIPTION
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first impression")
    parser.add_argument("--only", action="append", metavar="NAME", default=[], help="this experiment; may be repeated")
    parser.add_argument("--json", action="store_true", help="every sample as one JSON document")
    parser.add_argument("--guard", action="store_true", help="exit with status 1 where a ratio is three times the goal")
    parser.add_argument("--list", action="store_true", help="name the experiments and run none")
    chaos = parser.add_argument_group(
        "instead of measuring",
        "children are killed, callers leave and the event loop is held up at random; in the end every job, "
        "every value and every permit must be accounted for",
    )
    chaos.add_argument(
        "--chaos", action="store_true", help="see whether everything ends well when everything goes wrong"
    )
    chaos.add_argument(
        "--seconds",
        type=number_of("number of seconds", 0, MOST_SECONDS),
        default=60.0,
        help="for how long at least (default: 60)",
    )
    chaos.add_argument(
        "--jobs", type=whole_number(0), default=20_000, help="and for how many jobs at least (default: 20000)"
    )
    chaos.add_argument(
        "--values",
        type=whole_number(0),
        default=100_000,
        help="and for how many results and streamed values (default: 100000)",
    )
    chaos.add_argument("--ray", metavar="ADDRESS", help='over the devices of a Ray cluster, or "auto"')
    chaos.add_argument("--seed", type=whole_number(0), help="what chance draws (default: another one each time)")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Run the experiments; results go to stdout, progress to stderr.

    Returns:
        0 when all experiments ran, whatever they measured; 1 when one died, or with `--guard` where a goal is missed
        grossly; with `--chaos` 0 if all was well in the end, and 1 if not.

    Raises:
        UsageError: There is no experiment of a name given with `--only`, or no chaos here.
    """
    if args.chaos:
        return _let_it_storm(args)
    from director._bench.apart import ExperimentDied
    from director._bench.suite import by_name

    try:
        experiments = by_name(args.only)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.list:
        _print_names(experiments)
        return DONE
    try:
        return _measure_and_print(args, experiments)
    except ExperimentDied as error:
        complain(f"director bench: {error}")
        return FAILED


def _let_it_storm(args: Namespace) -> int:
    import random

    if not sys.platform.startswith("linux"):
        raise UsageError("--chaos needs Linux, as processes do")
    from director._bench.chaos import report, storm

    seed = random.SystemRandom().randrange(1_000_000) if args.seed is None else args.seed
    where = {} if args.ray is None else {"executor": "ray", "address": args.ray}
    outcome = storm.run(storm.Plan(seconds=args.seconds, jobs=args.jobs, values=args.values, seed=seed, **where))
    say(report.text(outcome))
    return FAILED if outcome.faults else DONE


def _print_names(experiments: list[Experiment]) -> None:
    width = max(len(experiment.name) for experiment in experiments)
    for experiment in experiments:
        say(f"{experiment.name.ljust(width)}  {experiment.question}")


def _measure_and_print(args: Namespace, experiments: list[Experiment]) -> int:
    from director._bench.report import document, text
    from director._bench.rounds import Effort
    from director._bench.suite import run_suite

    outcome = run_suite(experiments, Effort.QUICK if args.quick else Effort.FULL)
    if args.json:
        say_json(document(outcome), indent=2)
    else:
        say(text(outcome))
    return FAILED if args.guard and any(verdict.gross for verdict in outcome.verdicts) else DONE
