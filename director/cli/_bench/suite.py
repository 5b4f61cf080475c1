"""A run of the benchmarks: which experiments, where, and the results."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from director._format import did_you_mean
from director.cli._bench.catalog import ONE_CORE, Experiment, can_pin, run_one
from director.cli._bench.contenders import EVERYBODY, absent
from director.cli._bench.goals import Goal, Verdict, evaluate_all
from director.cli._console import print_tick

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from director.cli._bench.sheet import Cell, Effort

DISTRIBUTIONS = ("gpu-director", "anyio", "aiojobs", "uvloop")


@dataclass(frozen=True)
class Outcome:
    """Everything that one run measured."""

    experiments: Sequence[Experiment]
    effort: Effort
    circumstances: Mapping[str, str]
    left_out: tuple[str, ...]
    measured: Mapping[tuple[str, str], tuple[Cell, ...]]
    verdicts: tuple[Verdict, ...]


def run_suite(experiments: Sequence[Experiment], goals: Iterable[Goal], effort: Effort) -> Outcome:
    """Run experiments one after the other, alone, and evaluate the goals; progress goes to stderr.

    Raises:
        ExperimentDied: The process of an experiment ended without an answer.
    """
    before = circumstances()
    measured = {}
    for experiment in experiments:
        for place in experiment.places_for(effort):
            if place != ONE_CORE or can_pin():
                measured[experiment.name, place] = _timed(experiment, place, effort)
    return Outcome(experiments, effort, before, tuple(left_out()), measured, tuple(evaluate_all(measured, goals)))


def _timed(experiment: Experiment, place: str, effort: Effort) -> tuple[Cell, ...]:
    print_tick(f"{experiment.name}, {place} ")
    began = time.perf_counter()
    try:
        return run_one(experiment, place, effort)
    finally:
        print_tick(f" {time.perf_counter() - began:.1f} s\n")


def by_name(names: Sequence[str], experiments: Sequence[Experiment]) -> list[Experiment]:
    """Those of the experiments that have one of the names, all of them for no name.

    Raises:
        ValueError: There is no experiment of such a name.
    """
    known = {experiment.name: experiment for experiment in experiments}
    unknown = [name for name in names if name not in known]
    if unknown:
        meant = did_you_mean(unknown[0], known)
        raise ValueError(f"no experiment is called {unknown[0]!r}; there are {', '.join(known)}{meant}")
    return [known[name] for name in names] or list(experiments)


def left_out() -> list[str]:
    """What cannot take part on this machine."""
    reasons = [f"{contender.name}: {contender.needs} is not installed" for contender in absent(EVERYBODY)]
    if _version_of("uvloop") is None:
        reasons.append("director on uvloop: uvloop is not installed")
    if not can_pin():
        reasons.append("everything on one core: this system cannot bind a process to a core")
    return reasons


def circumstances() -> dict[str, str]:
    """The date, the machine and the versions."""
    versions = {name: _version_of(name) for name in DISTRIBUTIONS}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0)) if can_pin() else os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        **{name: found for name, found in versions.items() if found},
    }


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
