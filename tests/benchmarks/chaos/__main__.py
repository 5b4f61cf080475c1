"""One storm, by options; the exit status tells whether all was well in the end."""

from __future__ import annotations

import random
import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING

from benchmarks.chaos import report, storm
from director._untrusted.numbers import MOST_SECONDS
from director.cli._status import number_of, whole_number

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

DESCRIPTION = """\
Children are killed, callers leave and the event loop is blocked at random; in the end every job, every value and every
permit must be accounted for. Needs Linux."""


def parse(words: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser("python -m benchmarks.chaos", description=DESCRIPTION)
    parser.add_argument(
        "--seconds",
        type=number_of("number of seconds", 0, MOST_SECONDS),
        default=60.0,
        help="for how long at least (default: 60)",
    )
    parser.add_argument(
        "--jobs", type=whole_number(0), default=20_000, help="and for how many jobs at least (default: 20000)"
    )
    parser.add_argument(
        "--values",
        type=whole_number(0),
        default=100_000,
        help="and for how many results and streamed values (default: 100000)",
    )
    parser.add_argument("--ray", metavar="ADDRESS", help='over the devices of a Ray cluster, or "auto"')
    parser.add_argument("--seed", type=whole_number(0), help="what chance draws (default: another one each time)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run a storm and print its report; 1 if anything was wrong in the end."""
    args = parse(words)
    seed = random.SystemRandom().randrange(1_000_000) if args.seed is None else args.seed
    where = {} if args.ray is None else {"executor": "ray", "address": args.ray}
    outcome = storm.run(storm.Plan(seconds=args.seconds, jobs=args.jobs, values=args.values, seed=seed, **where))
    print(report.text(outcome))
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
