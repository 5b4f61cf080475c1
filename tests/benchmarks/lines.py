"""Queues, simulated exactly: the waits of a discipline for the same arrivals and service times.

Discrete events without overhead: time passes only while jobs are served.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random


def central(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """Waiting time of each job in one FIFO queue for all servers."""
    free_at = [0.0] * servers
    waits = []
    for arrival, service in zip(arrivals, services, strict=True):
        start = max(arrival, free_at[0])
        heapq.heapreplace(free_at, start + service)
        waits.append(start - arrival)
    return waits


def round_robin(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """Waiting time of each job when servers have a queue each and jobs are assigned round robin."""
    free_at = [0.0] * servers
    waits = []
    for number, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
        server = number % servers
        start = max(arrival, free_at[server])
        free_at[server] = start + service
        waits.append(start - arrival)
    return waits


def shortest(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """Waiting time of each job when servers have a queue each and a job joins the shortest one."""
    return _chosen(arrivals, services, servers, lambda ends: min(ends, key=len))


def two_choices(arrivals: Sequence[float], services: Sequence[float], servers: int, dice: Random) -> list[float]:
    """Waiting time of each job when servers have a queue each and a job joins the shorter of two random ones."""
    return _chosen(arrivals, services, servers, lambda ends: min(dice.sample(ends, 2), key=len))


def at_random(arrivals: Sequence[float], services: Sequence[float], servers: int, dice: Random) -> list[float]:
    """Waiting time of each job when servers have a queue each and a job joins a random one."""
    return _chosen(arrivals, services, servers, dice.choice)


def _chosen(
    arrivals: Sequence[float],
    services: Sequence[float],
    servers: int,
    choose: Callable[[list[deque[float]]], deque[float]],
) -> list[float]:
    """Waiting time of each job; a server's queue is the list of times at which its jobs will have been served."""
    ends: list[deque[float]] = [deque() for _ in range(servers)]
    waits = []
    for arrival, service in zip(arrivals, services, strict=True):
        for line in ends:
            while line and line[0] <= arrival:
                line.popleft()
        line = choose(ends)
        start = line[-1] if line else arrival
        line.append(start + service)
        waits.append(start - arrival)
    return waits


def batches(
    arrivals: Sequence[float], seconds: Callable[[int], float], servers: int, most: int
) -> tuple[list[float], list[int]]:
    """Greedy batches: a free server takes all waiting items, up to `most`, and never waits for more.

    Args:
        arrivals: Times in order.
        seconds: The time of a batch of a given size.
        servers: How many batches run at once.
        most: Most items in a batch.

    Returns:
        The time of each item from its arrival to the end of its batch, and the size of each batch.
    """
    free_at = [0.0] * servers
    stays: list[float] = []
    sizes: list[int] = []
    while (first := len(stays)) < len(arrivals):
        start = max(arrivals[first], free_at[0])
        size = bisect_right(arrivals, start, first, min(first + most, len(arrivals))) - first
        end = start + seconds(size)
        heapq.heapreplace(free_at, end)
        stays += [end - arrival for arrival in arrivals[first : first + size]]
        sizes.append(size)
    return stays, sizes
