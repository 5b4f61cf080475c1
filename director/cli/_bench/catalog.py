"""The experiments of `director bench`, by name, and how to run one: in a new process, on one core or on all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from director.cli._bench import command_line, lost, overhead, processes
from director.cli._bench.contenders import POOL, RUN_IN_EXECUTOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from director.cli._bench.sheet import Cell, Effort, Sheet

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


GRACE = 5.0  # s between an answer and the end of its process


class ExperimentDied(RuntimeError):
    """The process of an experiment ended without an answer."""


def can_pin() -> bool:
    """Whether this system can bind a process to one core."""
    return hasattr(os, "sched_setaffinity")


def run_apart(function: Callable[..., Any], *args: Any, one_core: bool = False) -> Any:
    """Call `function` in a fresh interpreter and return what it returns.

    Interrupting the caller ends the process. What the function raises ends it too, with its traceback on stderr.

    Args:
        function: Importable by name.
        *args: Sent to the process.
        one_core: Bind the process, and all its threads, to one core.

    Raises:
        ExperimentDied: The process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")  # a forked child would inherit our threads' locks
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, one_core, function, args))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        process.join()
        raise ExperimentDied(f"an experiment ended with exit status {process.exitcode} instead of an answer") from None
    except BaseException:
        process.kill()  # interrupted: the answer is not needed
        raise
    finally:
        mine.close()
        process.join(timeout=GRACE)
        process.kill()  # a contender may have started a thread that does not end
        process.join()


def _child(answer: Connection, one_core: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # interrupted from the terminal: end at once without a traceback
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    answer.send(function(*args))
    answer.close()
