"""`director run` beside other programs: that all do the work which is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.cli._bench.catalog import ALL_CORES, EXPERIMENTS
from director.cli._bench.command_line import JOURNALLED, PARALLEL, XARGS, prepared, programs
from director.cli._bench.goals import GOALS, evaluate
from director.cli._bench.sheet import Cell

if TYPE_CHECKING:
    from pathlib import Path


def test_each_program_does_every_line(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    for program in programs():
        assert program.seconds(folder, 5) > 0.0
        assert len((folder / "lines").read_text().splitlines()) == 5
        if program.name == JOURNALLED:
            assert len((folder / "out.jsonl").read_text().splitlines()) == 5
    assert JOURNALLED in [program.name for program in programs()]


def test_the_goals_are_those_of_its_figures() -> None:
    (experiment,) = [each for each in EXPERIMENTS if each.name == "command-line"]
    cells = tuple(
        Cell(name, "an item", "µs", (took,)) for name, took in ((JOURNALLED, 40.0), (XARGS, 79.0), (PARALLEL, 201.0))
    )
    goals = [goal for goal in GOALS if goal.experiment == experiment.name]
    verdicts = [evaluate(goal, {(experiment.name, ALL_CORES): cells}) for goal in goals]
    assert [verdict is not None and verdict.reached for verdict in verdicts] == [False, True]
