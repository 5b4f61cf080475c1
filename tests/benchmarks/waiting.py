"""How long jobs with random arrivals and lengths wait, compared with one ideal queue."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks import lines
from director._format import quantile
from director.cli._bench.calls import noop
from director.cli._bench.contenders import DIRECTOR, POOL, Contender, OpenContender
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from collections.abc import Callable

SERVERS = 4
LOAD = 0.7
MEAN = 0.010  # s
SIGMA = 1.5
PEERS: dict[str, Callable[[list[float], list[float], int], list[float]]] = {
    "one line, exact": lines.central,
    "join the shortest line, exact": lines.shortest,
    "shorter of two lines, exact": partial(lines.two_choices, dice=random.Random(1)),
    "round robin, exact": lines.round_robin,
    "any line, exact": partial(lines.at_random, dice=random.Random(1)),
}


@dataclass(slots=True)
class Visit:
    """One job: when it was submitted, when it began and ended, in seconds of the performance counter."""

    length: float
    arrived: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    def __call__(self, *_device: object) -> None:
        """Occupy the device for the planned length."""
        self.began = time.perf_counter()
        time.sleep(self.length)
        self.ended = time.perf_counter()


def plan(count: int, seed: int) -> tuple[list[float], list[Visit]]:
    """Poisson arrivals (seconds from the start) and lognormal lengths; the same for the same seed."""
    dice = random.Random(seed)  # a trace, not a secret
    rate = LOAD * SERVERS / MEAN
    moments, now = [], 0.0
    for _ in range(count):
        now += dice.expovariate(rate)
        moments.append(now)
    mu = math.log(MEAN) - SIGMA**2 / 2
    return moments, [Visit(dice.lognormvariate(mu, SIGMA)) for _ in range(count)]


async def serve(seat: OpenContender, moments: list[float], visits: list[Visit]) -> None:
    """Submit each visit at its time, whether or not earlier ones are done, and wait for all of them."""
    handles: list[Any] = []
    began = time.perf_counter()
    for moment, visit in zip(moments, visits, strict=True):
        ahead = began + moment - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        visit.arrived = time.perf_counter()
        handles.append(seat.submit(visit))
    await seat.gather(handles)


def measure(effort: Effort) -> Sheet:
    """Measured waits, and those of other disciplines on the measured arrivals and service times of the same round."""
    sheet = Sheet()
    count = effort.pick(2000, 300)
    seeds = {contender.name: 0 for contender in (POOL, DIRECTOR)}
    for contender in turns(effort.pick((POOL, DIRECTOR), (DIRECTOR,)), rounds=effort.pick(5, 3)):
        seeds[contender.name] += 1  # every contender gets the same traces
        visits = asyncio.run(_round(contender, *plan(count, seeds[contender.name])))
        _report(sheet, contender.name, visits)
    return sheet


async def _round(contender: Contender, moments: list[float], visits: list[Visit]) -> list[Visit]:
    async with contender.open(SERVERS) as seat:
        await seat.gather([seat.submit(noop) for _ in range(100)])
        await serve(seat, moments, visits)
    return visits


def _report(sheet: Sheet, name: str, visits: list[Visit]) -> None:
    arrivals = [visit.arrived for visit in visits]
    services = [visit.ended - visit.began for visit in visits]
    best = lines.central(arrivals, services, SERVERS)
    _add(sheet, name, [visit.began - visit.arrived for visit in visits], best)
    if name == DIRECTOR.name:
        for peer, discipline in PEERS.items():
            _add(sheet, peer, discipline(arrivals, services, SERVERS), best)


def _p99(values: list[float]) -> float:
    return quantile(sorted(values), 0.99)


def _add(sheet: Sheet, name: str, waits: list[float], best: list[float]) -> None:
    for figure, of in (("mean", fmean), ("p99", _p99)):
        sheet.add(name, f"{figure} wait", "ms", 1000 * of(waits))
        sheet.add(name, f"{figure} / best", "x", of(waits) / of(best))
