"""When requests come, and how soon they could be answered at best."""

from __future__ import annotations

import heapq
import random

from benchmarks.http import model


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments from 0 at which independent clients would come, `rate` of them a second."""
    chance, now, moments = random.Random(seed), 0.0, []
    while (now := now + chance.expovariate(rate)) < seconds:
        moments.append(now)
    return moments


def ideal(moments: list[float], workers: int) -> list[float]:
    """Latencies of a server that costs nothing and never lets a copy of the model rest while somebody waits.

    Each copy that is free takes all who have come, up to the largest batch, and waits for nobody.
    """
    free = [0.0] * workers  # when each copy is free, a heap
    latencies: list[float] = []
    while len(latencies) < len(moments):
        first = len(latencies)
        begin = max(heapq.heappop(free), moments[first])
        size = sum(moment <= begin for moment in moments[first : first + model.LARGEST])
        end = begin + model.seconds(size)
        heapq.heappush(free, end)
        latencies += [end - moment for moment in moments[first : first + size]]
    return latencies


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; infinite if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")
