"""A Director against the routers of Ray Serve, in one run: ``python -m benchmarks.routers``.

The workloads are the two of the benchmark that Ray keeps of its routers, and its issue 52609. As many users as there
are slots, or twice as many, each with its next call as soon as the last is answered; the n-th call takes as long
whoever makes it. Utilisation is the share of the slots' time in which a call ran. Needs ``pip install 'ray[serve]'``;
without, Serve is left out, which is said.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from benchmarks.cluster import arguments, cluster, sleep
from director import Director
from director.ray import RayExecutor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

ROUNDS = 3
LOADS = (1.0, 2.0)  # users for each slot; Ray's own has one
ISSUE = "issue 52609"
Call: TypeAlias = "Callable[[float], Awaitable[float]]"  # sleeps, and returns how long it did


@dataclass(frozen=True)
class Workload:
    """How long calls take, and how many run at once.

    Args:
        mean: Seconds.
        cap: The most.
        replicas: Of Serve; a Director has so many devices.
        slots: Of each.
        seconds: That a round lasts.
        is_side_by_side: Whether the contenders run at the same time: they cost too little to be in each other's way.
    """

    mean: float
    cap: float
    replicas: int
    slots: int
    seconds: float
    is_side_by_side: bool = False

    @property
    def all_slots(self) -> int:
        """Calls that run at once."""
        return self.replicas * self.slots

    def trace(self, of_round: int) -> list[float]:
        """Seconds of each call, more than a round can use."""
        draw = random.Random(of_round)
        count = int(4 * self.seconds * self.all_slots / self.mean)
        return [min(self.cap, draw.expovariate(1 / self.mean)) for _ in range(count)]


WORKLOADS = {
    "exponential 10 ms, 5 slots": Workload(0.01, 0.1, 1, 5, 5.0),
    "exponential 10 ms, 2 x 5 slots": Workload(0.01, 0.1, 2, 5, 5.0),
    "exponential 1 s up to 10 s, 2 x 2 slots": Workload(1.0, 10.0, 2, 2, 20.0, is_side_by_side=True),
}


class Seen(NamedTuple):
    """One call."""

    began: float
    ended: float
    ran: float


async def closed_loop(call: Call, trace: list[float], users: int, seconds: float) -> tuple[float, list[Seen]]:
    """So many users, for so long.

    Returns:
        When it began, and every call.
    """
    calls = iter(trace)
    seen: list[Seen] = []
    start = time.perf_counter()

    async def user() -> None:
        while (began := time.perf_counter()) < start + seconds:
            ran = await call(next(calls))
            seen.append(Seen(began, time.perf_counter(), ran))

    await asyncio.gather(*[user() for _ in range(users)])
    return start, seen


def utilisation(start: float, seconds: float, seen: list[Seen], slots: int) -> float:
    """The share of the slots' time in which a call ran; what ran past the end does not count."""
    end = start + seconds
    return sum(max(0.0, min(each.ran, end - (each.ended - each.ran))) for each in seen) / (seconds * slots)


async def compare(contenders: dict[str, Call], workload: Workload, load: float) -> dict[str, Any]:
    """All contenders with the same calls, in turn or side by side."""
    slots = workload.all_slots
    used: dict[str, list[float]] = {name: [] for name in contenders}
    seen: dict[str, list[Seen]] = {name: [] for name in contenders}

    async def one(name: str, of_round: int) -> None:
        trace = workload.trace(of_round)
        start, calls = await closed_loop(contenders[name], trace, int(load * slots), workload.seconds)
        used[name].append(utilisation(start, workload.seconds, calls, slots))
        seen[name].extend(calls)

    for of_round in range(ROUNDS):
        names = list(contenders)
        order = names[of_round % len(names) :] + names[: of_round % len(names)]
        if workload.is_side_by_side:
            await asyncio.gather(*[one(name, of_round) for name in order])
        else:
            for name in order:
                await one(name, of_round)
    return {name: _figures(used[name], seen[name]) for name in contenders}


def _figures(used: list[float], seen: list[Seen]) -> dict[str, Any]:
    taken = [each.ended - each.began for each in seen]
    around = [each.ended - each.began - each.ran for each in seen]
    return {
        "utilisation": round(statistics.median(used), 4),
        "each": [round(each, 4) for each in used],
        "calls": len(seen),
        "p50_ms": _percentile(taken, 50),
        "p99_ms": _percentile(taken, 99),
        "around_p99_ms": _percentile(around, 99),  # what is not the call itself: waiting, and the way there and back
    }


def _percentile(values: list[float], which: int) -> float:
    return round(statistics.quantiles(values, n=100)[which - 1] * 1e3, 2)


async def by_users(contenders: dict[str, Call], seconds: float) -> dict[str, Any]:
    """Issue 52609: calls of 100 ms, one slot, 1 to 5 users: calls a second of each contender."""
    found: dict[str, Any] = {name: {} for name in contenders}
    for users in range(1, 6):
        for name, call in contenders.items():
            start, seen = await closed_loop(call, [0.1] * int(20 * seconds), users, seconds)
            wall = max(each.ended for each in seen) - start
            found[name][f"{users} users"] = round(len(seen) / wall, 2)
    return found


async def contend(stack: AsyncExitStack, slots: int, replicas: int, *, is_blocking: bool = False) -> dict[str, Call]:
    """Everybody who can do it, warmed up."""
    devices = f"cpu:{replicas}"
    director = await stack.enter_async_context(
        Director(devices, slots=slots, executor=RayExecutor(start_timeout=120.0), max_queue=None)
    )
    contenders: dict[str, Call] = {"Director": lambda seconds: director.run(sleep, seconds)}
    if _has_serve():
        from benchmarks import serve

        work = serve.Block if is_blocking else serve.Rest
        for router in serve.ROUTERS:
            contenders[router] = (await asyncio.to_thread(serve.deployed, router, work, replicas, slots)).remote
    for call in contenders.values():
        for _ in range(3):
            await asyncio.gather(*[call(0.02) for _ in range(8 * slots * replicas)])
    return contenders


async def run(args: argparse.Namespace) -> None:
    """All parts that are asked for."""
    for name, workload in WORKLOADS.items():
        if args.part in name:
            async with AsyncExitStack() as stack:
                contenders = await contend(stack, workload.slots, workload.replicas)
                for load in LOADS:
                    title = f"{name}, {load:g} users a slot"
                    print(json.dumps({title: await compare(contenders, workload, load)}, indent=2), flush=True)
    if args.part in ISSUE:
        async with AsyncExitStack() as stack:
            contenders = await contend(stack, 1, 1, is_blocking=True)
            print(json.dumps({ISSUE: await by_users(contenders, 4.0)}, indent=2), flush=True)


def main() -> None:
    """Start a cluster on this machine, measure, and end it."""
    args = arguments(__doc__, (*WORKLOADS, ISSUE)).parse_args()
    with cluster():
        if not _has_serve():
            print("Ray Serve is left out, for it is not installed: pip install 'ray[serve]'", file=sys.stderr)
            asyncio.run(run(args))
            return
        from benchmarks.serve import serving

        with serving():
            asyncio.run(run(args))


def _has_serve() -> bool:
    try:
        import ray.serve  # noqa: F401 - whether it comes with all that it needs
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
