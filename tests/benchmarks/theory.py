"""The experiments that check the design of a Director: `python3 noxfile.py -s theory`.

A user has little to learn from them on a machine of their own; `director bench` has the others. The options and the
report are the same.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING

from benchmarks import idle, observers, order, queue_depth, slo, streams
from director.cli._bench.catalog import ALL_CORES, COSTS, LOSSES, ONE_CORE, Experiment
from director.cli._bench.contenders import DIRECTOR, SEMAPHORES
from director.cli._bench.goals import Goal
from director.cli._status import UsageError
from director.cli.bench import add_options, run_experiments

if TYPE_CHECKING:
    from collections.abc import Sequence

EXPERIMENTS = (
    Experiment("hooks", "what it adds to a no-op job that somebody watches, 2 slots", observers.measure, COSTS,
               DIRECTOR.name),
    Experiment("slo", "items a second of which 99 % end within 25 ms, 8 devices, on virtual time", slo.measure,
               (ALL_CORES,), slo.OPTIMUM),
    Experiment("queue", "cost of a job that waits behind very many others", queue_depth.measure, (ONE_CORE,),
               SEMAPHORES.name),
    Experiment("order", "cost of a decision when much waits: jobs, tenants, batch keys, priorities", order.measure,
               (ONE_CORE,), "jobs"),
    Experiment("streams", "values of generators on 4 slots, read on the event loop", streams.measure, LOSSES,
               streams.COROUTINE.name),
    Experiment("idle", "what an open Director costs that has nothing to do", idle.measure, (ALL_CORES,),
               idle.BARE_LOOP.name),
)  # fmt: skip


def _undisturbed(streamer: str) -> Goal:
    """As many values beside a blocked loop as beside an idle one: the only figure of which more is better."""
    quiet, blocked = (f"values of 1 ms: {burden}" for burden in streams.BURDENS)
    return Goal("streams", ALL_CORES, quiet, 1.05, of=blocked, contender=streamer)


def _queue(most: str) -> tuple[Goal, ...]:
    return (
        Goal("queue", ONE_CORE, f"{most}: submit and run", 1.5, of="10,000: submit and run"),
        Goal("queue", ONE_CORE, f"{most}: memory", 370),
    )


def _grows(case: str) -> Goal:
    """With a hundred times as many; the logarithm and the caches may grow, a search through them would show."""
    return Goal("order", ONE_CORE, "take grows", 5.0, contender=case)


GOALS = (
    Goal("hooks", ONE_CORE, observers.ADDED, 1.0, contender=observers.TIMELINE.name, guarded=False),
    Goal("hooks", ONE_CORE, observers.JOB, 1.02, to=DIRECTOR.name, contender=observers.METRICS.name),
    Goal("slo", ALL_CORES, "rate", 5300, at_least=True),
    Goal("slo", ALL_CORES, "rate", 5300, at_least=True, contender=slo.DEFERRED),
    *_queue("100,000"),
    *_queue("1,000,000"),
    Goal("queue", ONE_CORE, "1,000,000: submit", 2.5, guarded=False),
    *map(_grows, order.CASES),
    Goal("streams", ONE_CORE, "first value: idle loop", 1.0, to=streams.COROUTINE.name),
    Goal("streams", ALL_CORES, "without work: each value", 0.1, to=streams.COROUTINE.name),
    Goal("streams", ALL_CORES, "without work: each value", 1.0, to=streams.CALL_SOON.name),
    _undisturbed(streams.ROOMY.name),
    Goal("idle", ALL_CORES, "wake-ups", 1.0, to=idle.BARE_LOOP.name, floor=10.0),
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the experiments that the command line chooses, and return the exit status."""
    parser = ArgumentParser("python -m benchmarks.theory", description=__doc__)
    add_options(parser)
    try:
        return run_experiments(parser.parse_args(words), EXPERIMENTS, GOALS)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
