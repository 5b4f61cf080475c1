"""The experiments of `director bench`, by name, and how to run one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from director.cli._bench import command_line, lost, overhead, processes
from director.cli._bench.apart import run_apart
from director.cli._bench.contenders import POOL, RUN_IN_EXECUTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.cli._bench.rounds import Effort
    from director.cli._bench.sheet import Cell, Sheet

ONE_CORE = "one core"
ALL_CORES = "all cores"


@dataclass(frozen=True)
class Experiment:
    """One question, and the work that answers it.

    Args:
        name: What `--only` takes.
        question: One line of description.
        measure: Does the work; importable by name, because it runs in another process.
        places: Where a full run measures, the first also in a quick run.
        reference: The contender that the table compares the others with.
    """

    name: str
    question: str
    measure: Callable[[Effort], Sheet]
    places: tuple[str, ...]
    reference: str

    def places_for(self, effort: Effort) -> tuple[str, ...]:
        """Where a run of that effort measures."""
        return effort.pick(self.places, self.places[:1])


COSTS = (ONE_CORE, ALL_CORES)  # on one core a cost repeats within a few percent
LOSSES = (ALL_CORES, ONE_CORE)  # slots and loop share the one core, which is another kind of loss

EXPERIMENTS = (
    Experiment("burst", "cost of a no-op job, all submitted first, 2 slots", overhead.bursts, COSTS, POOL.name),
    Experiment("round-trip", "cost of a no-op job, each awaited before the next", overhead.round_trips, COSTS,
               RUN_IN_EXECUTOR.name),
    Experiment("lost-1ms", "share of slot time lost with jobs of 1 ms, 4 slots", partial(lost.measure, seconds=0.001),
               LOSSES, POOL.name),
    Experiment("lost-20ms", "share of slot time lost with jobs of 20 ms, 4 slots", partial(lost.measure, seconds=0.020),
               LOSSES, POOL.name),
    Experiment("slots-64", "share of slot time lost with jobs of 20 ms, 64 slots", lost.many_slots, LOSSES, POOL.name),
    Experiment("slots-1000", "cost of a no-op job with very many slots", overhead.many_slots, COSTS, POOL.name),
    Experiment("process-round-trip", "cost of a no-op job in another process, each awaited before the next",
               processes.round_trips, COSTS, processes.PROCESS_POOL.name),
    Experiment("process-lost-1ms", "share of slot time lost with jobs of 1 ms in 4 processes",
               processes.lost_1ms, (ALL_CORES,), processes.PROCESS_POOL.name),
    Experiment("process-lost-20ms", "share of slot time lost with jobs of 20 ms in 4 processes",
               processes.lost_20ms, (ALL_CORES,), processes.PROCESS_POOL.name),
    Experiment("process-array", "25 MB to another process and back", processes.arrays, (ALL_CORES,),
               processes.PROCESS_POOL.name),
    Experiment("process-recovery", "a process that starts, dies and is replaced", processes.recovery, (ALL_CORES,),
               processes.INTERPRETER),
    Experiment("uvloop", "a Director on uvloop against asyncio's own loop", overhead.loops, COSTS, "director, asyncio"),
    Experiment("command-line", "cost of an item of `director run` that does nothing, beside xargs and GNU parallel",
               command_line.measure, (ALL_CORES,), command_line.JOURNALLED),
)  # fmt: skip


def run_one(experiment: Experiment, place: str, effort: Effort) -> tuple[Cell, ...]:
    """Run one experiment in a process of its own and return its cells."""
    cells: tuple[Cell, ...] = run_apart(_cells, experiment.measure, effort, one_core=place == ONE_CORE)
    return cells


def _cells(measure: Callable[[Effort], Sheet], effort: Effort) -> tuple[Cell, ...]:
    return tuple(measure(effort).cells())
