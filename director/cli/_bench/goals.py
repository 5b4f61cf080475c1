"""The goals: what a Director has to reach, mostly as a ratio to another contender measured in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from director.cli._bench.catalog import ALL_CORES, ONE_CORE
from director.cli._bench.command_line import JOURNALLED, PARALLEL, XARGS
from director.cli._bench.contenders import DIRECTOR, POOL, RUN_IN_EXECUTOR, SEMAPHORES, TO_THREAD
from director.cli._bench.processes import ANYIO_PROCESS, BURDENS, DIRECTOR_PROCESS, PROCESS_POOL
from director.cli._bench.sheet import Cell, Ratio, ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeAlias

    Measured: TypeAlias = Mapping[tuple[str, str], tuple[Cell, ...]]
    """Cells by experiment and place."""

GROSS = 3.0  # times the goal, which is beyond the noise of a shared machine


@dataclass(frozen=True)
class Goal:
    """A bound for one figure of one contender, alone or as a ratio.

    Args:
        experiment: Where it is measured.
        place: On one core or on all.
        figure: Which figure.
        limit: The most it may be, or the least: a ratio where `to` or `of` is given, else in the unit of the figure.
        to: The contender to compare with, on the same figure.
        of: The figure to compare with, of the same contender.
        contender: The contender whose figure it is.
        floor: A reference below this (in the unit of the figure) counts as this much in `gross`: there the difference
            of two small numbers is noise.
        guarded: Whether a gross miss should fail a build: not where the limit is a time, which depends on the machine.
        at_least: Whether the limit is a minimum.
    """

    experiment: str
    place: str
    figure: str
    limit: float
    to: str | None = None
    of: str | None = None
    contender: str = DIRECTOR.name
    floor: float = 0.0
    guarded: bool = True
    at_least: bool = False

    @property
    def text(self) -> str:
        """The goal in words."""
        whose = "" if self.contender == DIRECTOR.name else f" of {self.contender}"
        bound = f"{'>=' if self.at_least else '<='} {self.limit:{',.0f' if self.limit >= 1000 else '.3g'}}"
        other = self.to or self.of
        return f"{self.experiment}, {self.figure}{whose} {bound}" + (f" x {other}" if other else "")

    def allows(self, value: float) -> bool:
        """Whether a measured value is within the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and the measurement.

    Args:
        goal: The goal.
        measured: The ratio, or the figure itself, with the range over the rounds.
        unit: Of what was measured: `"x"` for a ratio.
        reached: Whether the median is within the limit.
        clear: Whether every round agrees with the median.
        gross: Whether it is `GROSS` times worse than the goal, in the best round too.
    """

    goal: Goal
    measured: Ratio
    unit: str
    reached: bool
    clear: bool
    gross: bool


def evaluate(goal: Goal, measured: Measured) -> Verdict | None:
    """The verdict on `goal`, `None` where this run did not measure it."""
    cells = {(cell.contender, cell.figure): cell for cell in measured.get((goal.experiment, goal.place), ())}
    cell = cells.get((goal.contender, goal.figure))
    if cell is None:
        return None
    if goal.to is None and goal.of is None:
        return _verdict(goal, Ratio(cell.median, cell.low, cell.high), cell.unit, cell.median)
    reference = cells.get((goal.to or goal.contender, goal.of or goal.figure))
    compared = ratio(cell, reference) if reference else None
    if reference is None or compared is None:
        return None
    return _verdict(goal, compared, "x", cell.median / max(reference.median, goal.floor))


def _verdict(goal: Goal, measured: Ratio, unit: str, coarse: float) -> Verdict:
    """`coarse`: the value that decides about a gross miss."""
    reached = goal.allows(measured.value)
    clear = goal.allows(measured.low) == goal.allows(measured.high) == reached
    best = measured.high if goal.at_least else measured.low  # the best round counts
    gross = goal.guarded and not any(
        goal.allows(value * GROSS if goal.at_least else value / GROSS) for value in (coarse, best)
    )
    return Verdict(goal, measured, unit, reached, clear, gross)


def evaluate_all(measured: Measured, goals: Iterable[Goal]) -> list[Verdict]:
    """The verdicts on those goals that this run can judge."""
    verdicts = (evaluate(goal, measured) for goal in goals)
    return [verdict for verdict in verdicts if verdict is not None]


def _loss(experiment: str, figure: str, limit: float, to: str) -> Goal:
    return Goal(experiment, ALL_CORES, figure, limit, to=to, floor=1.0)


GOALS = (
    Goal("command-line", ALL_CORES, "an item", 1 / 2, to=XARGS, contender=JOURNALLED),
    Goal("command-line", ALL_CORES, "an item", 1 / 5, to=PARALLEL, contender=JOURNALLED),
    Goal("burst", ONE_CORE, "gather", 0.40, to=POOL.name),
    Goal("burst", ONE_CORE, "gather", 0.12, to=RUN_IN_EXECUTOR.name),
    Goal("burst", ONE_CORE, "in turn", 0.35, to=POOL.name),
    Goal("burst", ONE_CORE, "in turn", 1 / 15, to=TO_THREAD.name),
    Goal("round-trip", ONE_CORE, "1 caller", 0.70, to=RUN_IN_EXECUTOR.name),
    Goal("round-trip", ONE_CORE, "8 callers", 0.40, to=RUN_IN_EXECUTOR.name),
    _loss("lost-1ms", "idle loop", 1.0, POOL.name),
    _loss("lost-1ms", "loop blocked", 1.0, POOL.name),
    _loss("lost-1ms", "loop blocked", 1 / 20, SEMAPHORES.name),
    _loss("lost-1ms", "loop in Python", 1.03, POOL.name),
    _loss("lost-1ms", "loop in JSON", 1.03, POOL.name),
    Goal("lost-1ms", ALL_CORES, "between jobs: loop in Python", 1.0),
    Goal("lost-1ms", ALL_CORES, "between jobs: loop in JSON", 1.0),
    _loss("lost-20ms", "idle loop", 1.0, POOL.name),
    _loss("lost-20ms", "loop blocked", 1.0, POOL.name),
    _loss("lost-20ms", "loop in Python", 1.0, POOL.name),
    Goal("slots-64", ALL_CORES, "64 slots, 20 ms", 3.0),
    Goal("slots-1000", ONE_CORE, "1,000 slots", 3.0, of="4 slots"),
    Goal("process-round-trip", ONE_CORE, "1 caller", 0.40, to=PROCESS_POOL.name, contender=DIRECTOR_PROCESS.name),
    Goal("process-round-trip", ONE_CORE, "1 caller", 1.00, to=ANYIO_PROCESS.name, contender=DIRECTOR_PROCESS.name),
    *(
        Goal("process-lost-1ms", ALL_CORES, figure, 2.5, contender=DIRECTOR_PROCESS.name, guarded=False)
        for figure in BURDENS
    ),
    Goal("process-array", ALL_CORES, "there and back", 0.20, to=PROCESS_POOL.name, contender=DIRECTOR_PROCESS.name),
    Goal("process-recovery", ALL_CORES, "death noticed", 50, contender=DIRECTOR_PROCESS.name, guarded=False),
    *(
        Goal("uvloop", ONE_CORE, figure, 1.0, to="director, asyncio", contender="director, uvloop")
        for figure in ("gather", "in turn", "1 caller", "8 callers")
    ),
)
