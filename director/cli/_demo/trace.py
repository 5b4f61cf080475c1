"""A stream of jobs with heavy-tailed durations, the same for every contender; and the best possible schedule of it."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass

from director._format import quantile

_SIGMA = 1.5  # of the lognormal: half of the jobs are short, a few take twenty times as long
_LONGEST = 25.0  # times the mean; one job must not determine the total time


@dataclass(frozen=True, slots=True)
class Call:
    """One job.

    Args:
        number: Position in the stream, from 0.
        arrival: Seconds after the start at which it comes.
        seconds: How long it occupies a device.
    """

    number: int
    arrival: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """What happened to one job; seconds after the start."""

    device: int
    arrival: float
    started: float
    ended: float


def make_trace(jobs: int, devices: int, *, mean: float, load: float, seed: int) -> list[Call]:
    """Lognormal durations and Poisson arrivals.

    Args:
        jobs: How many.
        devices: How many devices share them.
        mean: Mean duration in seconds.
        load: Share of the devices' time that the jobs would fill if nothing were lost.
        seed: The same seed gives the same stream.
    """
    chance = random.Random(seed)  # noqa: S311 -- a trace, not a secret
    drawn = [min(_LONGEST, chance.lognormvariate(-(_SIGMA**2) / 2, _SIGMA)) for _ in range(jobs)]
    durations = [mean * jobs * length / sum(drawn) for length in drawn]
    gaps = [chance.expovariate(1.0) for _ in range(jobs)]
    span = mean * jobs / (devices * load)
    arrivals = (span * moment / sum(gaps) for moment in itertools.accumulate(gaps))
    return [Call(*row) for row in zip(itertools.count(), arrivals, durations, strict=False)]


def at_best(trace: list[Call], devices: int) -> list[Run]:
    """The runs if each job began when it arrived or, in FIFO order, when a device became free."""
    free = [(0.0, device) for device in range(devices)]
    runs = []
    for call in trace:
        when, device = heapq.heappop(free)
        started = max(when, call.arrival)
        runs.append(Run(device, call.arrival, started, started + call.seconds))
        heapq.heappush(free, (started + call.seconds, device))
    return runs


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one way of scheduling. Waits and makespan in seconds, idle and lost as shares.

    Args:
        wait_p50: Half of the jobs began within this time of their arrival.
        wait_p99: 99 of 100 did.
        idle: Share of the devices' time, until the last job ended, that they ran nothing.
        lost: The part of it in which they could have run a job that was waiting.
        makespan: From the start to the end of the last job.
    """

    wait_p50: float
    wait_p99: float
    idle: float
    lost: float
    makespan: float


def figures(runs: list[Run], devices: int) -> Figures:
    """Measure the runs of one stream."""
    waits = sorted(run.started - run.arrival for run in runs)
    makespan = max(run.ended for run in runs)
    whole = devices * makespan
    busy = sum(run.ended - run.started for run in runs)
    return Figures(quantile(waits, 0.5), quantile(waits, 0.99), 1 - busy / whole, lost(runs, devices) / whole, makespan)


def lost(runs: list[Run], devices: int) -> float:
    """Device seconds spent idle while jobs waited; n idle devices and m waiting jobs lose min(n, m) at once."""
    steps = [step for run in runs for step in ((run.arrival, 1, 0), (run.started, -1, 1), (run.ended, 0, -1))]
    total, before, waiting, busy = 0.0, 0.0, 0, 0
    for moment, more_waiting, more_busy in sorted(steps):
        total += (moment - before) * max(0, min(waiting, devices - busy))
        before, waiting, busy = moment, waiting + more_waiting, busy + more_busy
    return total
