"""The Director's decision on virtual time against queueing theory: four servers, random arrivals, one line.

With Poisson arrivals and exponential service (M/M/4) Erlang's formula gives the mean wait of one central line exactly;
every other way to spread the jobs waits longer. Nothing here takes real time, and each trace repeats.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import pytest
from benchmarks import lines
from harness.play import Play

from director._format import quantile
from director._jobs.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

SERVERS = 4
COUNT = 200_000
BATCHES = 20  # of consecutive jobs, long enough to be nearly independent


@dataclass(frozen=True)
class Trace:
    """Moments of arrival, and seconds of service with a mean of 1."""

    arrivals: tuple[float, ...]
    services: tuple[float, ...]


@cache
def trace(load: float, seed: int = 1) -> Trace:
    dice = random.Random(seed)
    now, arrivals = 0.0, []
    for _ in range(COUNT):
        now += dice.expovariate(SERVERS * load)
        arrivals.append(now)
    return Trace(tuple(arrivals), tuple(dice.expovariate(1.0) for _ in range(COUNT)))


@cache
def waits_of_director(load: float) -> tuple[float, ...]:
    planned = trace(load)
    play = Play([1] * SERVERS, lambda jobs, _: planned.services[jobs[0].id - 1])
    waits = [job.waited for job in play.arrive(planned.arrivals, Options())]
    assert all(wait is not None for wait in waits)
    return tuple(wait or 0.0 for wait in waits)


def erlang_wait(load: float) -> float:
    """Mean wait of M/M/c in mean service times, by Erlang's C formula."""
    offered = SERVERS * load
    terms = [offered**k / math.factorial(k) for k in range(SERVERS)]
    queued = offered**SERVERS / math.factorial(SERVERS) / (1 - load)
    return queued / (sum(terms) + queued) / (SERVERS * (1 - load))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean with its standard error, by the means of batches: neighbours wait alike."""
    size = len(values) // BATCHES
    means = [fmean(values[start : start + size]) for start in range(0, size * BATCHES, size)]
    return fmean(means), stdev(means) / math.sqrt(BATCHES)


@pytest.mark.parametrize(("load", "known"), [(0.8, 0.746), (0.9, 1.969)])
def test_the_mean_wait_is_erlangs(load: float, known: float) -> None:
    assert erlang_wait(load) == pytest.approx(known, abs=0.0005)
    waits = waits_of_director(load)
    mean, error = mean_and_error(waits)
    assert abs(mean - known) < 2.5 * error
    assert error < 0.06 * known, "too short a trace to tell"
    others = lines.shortest(trace(load).arrivals, trace(load).services, SERVERS)
    more, error = mean_and_error([other - wait for other, wait in zip(others, waits, strict=True)])
    assert more > 10 * error, "the next best policy is told apart with certainty, job by job"


@pytest.mark.parametrize("load", [0.8, 0.9])
def test_every_job_waits_exactly_as_long_as_in_one_line(load: float) -> None:
    planned = trace(load)
    expected = lines.central(planned.arrivals, planned.services, SERVERS)
    assert waits_of_director(load) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("load", [0.8, 0.9])
def test_the_longest_waits_are_shorter_than_with_any_line_for_each_server(load: float) -> None:
    """p99: one line, then the shortest of all, of two drawn by lot, dealt in turn, dealt by lot."""
    planned = trace(load)
    played = (planned.arrivals, planned.services, SERVERS)
    waits = {
        "director": waits_of_director(load),
        "the shortest line": lines.shortest(*played),
        "the shorter of two": lines.two_choices(*played, random.Random(2)),
        "in turn": lines.round_robin(*played),
        "by lot": lines.at_random(*played, random.Random(3)),
    }
    worst = {name: quantile(sorted(each), 0.99) for name, each in waits.items()}
    for name, each in waits.items():
        print(f"load {load}, {name}: mean {fmean(each):.2f}, p99 {worst[name]:.1f} service times")
    assert list(worst.values()) == sorted(worst.values())
    assert worst["the shortest line"] > 1.05 * worst["director"]


@pytest.mark.parametrize("places", [[4], [2, 2], [1, 3]])
def test_it_does_not_matter_on_which_devices_the_slots_are(places: list[int]) -> None:
    planned = trace(0.9)
    play = Play(places, lambda jobs, _: planned.services[jobs[0].id - 1])
    waits = [job.waited for job in play.arrive(planned.arrivals[:20_000], Options())]
    assert waits == pytest.approx(waits_of_director(0.9)[:20_000], abs=1e-9)
