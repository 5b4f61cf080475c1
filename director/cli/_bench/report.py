"""The measurements of a run as text, as Markdown and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director.cli._bench.sheet import Cell, ratio
from director.cli._console import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from director.cli._bench.catalog import Experiment
    from director.cli._bench.goals import Verdict
    from director.cli._bench.suite import Outcome

DASH = "-"


def text(outcome: Outcome, *, goals: bool = False) -> str:
    """Tables, one for each experiment and place, and at the end the goals if they are asked for."""
    lines = [", ".join(f"{name} {value}" for name, value in outcome.circumstances.items()), LEGEND]
    lines += [f"Left out: {reason}." for reason in outcome.left_out]
    experiments = {experiment.name: experiment for experiment in outcome.experiments}
    for (name, place), cells in outcome.measured.items():
        lines += ["", *_section(experiments[name], place, cells)]
    if goals and outcome.verdicts:
        lines += ["", "Goals", *table(GOAL_HEADINGS, [_goal_row(verdict) for verdict in outcome.verdicts])]
    return "\n".join(lines)


LEGEND = "Median (min - max) of the rounds; x = ratio of the medians to the reference named above the table."
GOAL_HEADINGS = ("goal", "place", "measured", "over the rounds", "verdict")


def _section(experiment: Experiment, place: str, cells: Sequence[Cell]) -> Iterator[str]:
    yield f"{experiment.name}, {place}: {experiment.question}; x = to {experiment.reference}"
    for rows in _tables(experiment, cells):
        yield from table(rows[0], rows[1:])


def markdown(outcome: Outcome, *, goals: bool = False) -> str:
    """The same as Markdown: a heading for each experiment and place, with its tables below it."""
    facts = [f"{name} {value}" for name, value in outcome.circumstances.items()]
    blocks = [[", ".join(facts) + "."], [LEGEND], *([f"Left out: {reason}."] for reason in outcome.left_out)]
    experiments = {experiment.name: experiment for experiment in outcome.experiments}
    for (name, place), cells in outcome.measured.items():
        experiment = experiments[name]
        blocks.append([f"### {name}, {place}"])
        blocks.append([f"{_sentence(experiment.question)} x = to {experiment.reference}."])
        blocks += [list(markdown_table(rows)) for rows in _tables(experiment, cells)]
    if goals and outcome.verdicts:
        rows = [GOAL_HEADINGS, *(_goal_row(verdict) for verdict in outcome.verdicts)]
        blocks += [["### Goals"], list(markdown_table(rows))]
    return "\n\n".join("\n".join(block) for block in blocks)


def _sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith(("?", ".")) else f"{text}."


def _tables(experiment: Experiment, cells: Sequence[Cell]) -> Iterator[list[tuple[str, ...]]]:
    """The rows of each table of an experiment, headings first."""
    for group in dict.fromkeys(_group(cell) for cell in cells):
        yield list(_rows(group, [cell for cell in cells if _group(cell) == group], experiment.reference))


def _group(cell: Cell) -> str:
    """The table of a figure.

    Figures with the same text before a colon share one, because a table of all is too wide.
    """
    return cell.figure.rpartition(": ")[0]


def _rows(group: str, cells: Sequence[Cell], reference: str) -> Iterator[tuple[str, ...]]:
    by_key = {(cell.contender, cell.figure): cell for cell in cells}
    figures = {cell.figure: cell.unit for cell in cells}
    yield (group, *(f"{figure.rpartition(': ')[2]}, {unit}" for figure, unit in figures.items()))
    for contender in dict.fromkeys(cell.contender for cell in cells):
        row = (by_key.get((contender, figure)) for figure in figures)
        yield (contender, *(_entry(cell, by_key, reference) for cell in row))


def _entry(cell: Cell | None, cells: dict[tuple[str, str], Cell], reference: str) -> str:
    if cell is None:
        return DASH
    spread = f"{number(cell.median)} ({number(cell.low)} - {number(cell.high)})"
    other = cells.get((reference, cell.figure))
    compared = ratio(cell, other) if other is not None and cell.unit != "x" else None
    return spread if compared is None else f"{spread} {number(compared.value)}x"


def _goal_row(verdict: Verdict) -> tuple[str, ...]:
    measured = verdict.measured
    says = "reached" if verdict.reached else "not reached, by far" if verdict.gross else "not reached"
    says += "" if verdict.clear else ", within the noise"
    spread = f"{number(measured.low)} - {number(measured.high)}"
    return (verdict.goal.text, verdict.goal.place, f"{number(measured.value)} {verdict.unit}", spread, says)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def markdown_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table; the first row has the headings."""
    head, *others = rows
    for row in (head, ["---"] * len(head), *others):
        yield f"| {' | '.join(row)} |"


def document(outcome: Outcome, *, goals: bool = False) -> dict[str, Any]:
    """The same as JSON: every sample, ready for `json.dump`."""
    asked_for = {"goals": [_verdict(verdict) for verdict in outcome.verdicts]} if goals else {}
    return {
        "effort": outcome.effort.value,
        "circumstances": dict(outcome.circumstances),
        "left_out": list(outcome.left_out),
        "results": [
            {"experiment": name, "place": place, "cells": [_cell(cell) for cell in cells]}
            for (name, place), cells in outcome.measured.items()
        ],
        **asked_for,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "contender": cell.contender,
        "figure": cell.figure,
        "unit": cell.unit,
        "median": cell.median,
        "min": cell.low,
        "max": cell.high,
        "samples": list(cell.samples),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    goal, measured = verdict.goal, verdict.measured
    return {
        "goal": goal.text,
        "place": goal.place,
        "limit": goal.limit,
        "measured": measured.value,
        "min": measured.low,
        "max": measured.high,
        "unit": verdict.unit,
        "reached": verdict.reached,
        "clear": verdict.clear,
        "gross": verdict.gross,
    }
