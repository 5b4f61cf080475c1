"""Waiting lines, simulated exactly: what a discipline would have done with the same arrivals and service times."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def central(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """Waiting time of each job in one line, first come first served, that every server takes from."""
    free_at = [0.0] * servers
    waits = []
    for arrival, service in zip(arrivals, services, strict=True):
        start = max(arrival, free_at[0])
        heapq.heapreplace(free_at, start + service)
        waits.append(start - arrival)
    return waits


def round_robin(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """Waiting time of each job when servers have a line each and jobs are dealt out in turn."""
    free_at = [0.0] * servers
    waits = []
    for number, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
        server = number % servers
        start = max(arrival, free_at[server])
        free_at[server] = start + service
        waits.append(start - arrival)
    return waits


def shortest(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """Waiting time of each job when servers have a line each and a job joins the shortest, counting who is served."""
    ends: list[deque[float]] = [deque() for _ in range(servers)]
    waits = []
    for arrival, service in zip(arrivals, services, strict=True):
        for line in ends:
            while line and line[0] <= arrival:
                line.popleft()
        line = min(ends, key=len)
        start = line[-1] if line else arrival
        line.append(start + service)
        waits.append(start - arrival)
    return waits


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(0, rank - 1)]
