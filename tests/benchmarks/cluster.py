"""A Director over a Ray cluster on this machine, against Ray by itself: ``python -m benchmarks.cluster``.

All rounds of a comparison alternate between the contenders, and the medians are told with the spread, for what else the
machine does meets all of them. The slots' work is sleeping, so that the figures are of what lies between the jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from director import Director
from director.ray import RayExecutor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

ROUNDS = 5


class Bare:
    """What an actor is without a Director."""

    def call(self, *args: Any) -> None:
        """Nothing."""

    def sleep(self, seconds: float) -> float:
        """As a job."""
        return sleep(None, seconds)


def nothing(_device: Any) -> None:
    """The smallest job."""


def sleep(_device: Any, seconds: float) -> float:
    """A job that holds its slot; returns how long."""
    began = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - began


async def pace(call: Callable[[], Awaitable[Any]], callers: int, calls: int) -> float:
    """Seconds of one call when so many callers make one after the other."""

    async def caller() -> None:
        for _ in range(calls // callers):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(callers)])
    return (time.perf_counter() - began) / calls * callers


async def round_trips(executor: RayExecutor, calls: int) -> dict[str, Any]:
    """One slot and one actor that do nothing: seconds of a call, bare and through the Director, and the ratio."""
    import ray

    remote: Any = ray.remote
    actor = remote(Bare).options(num_cpus=0).remote()
    found: dict[str, Any] = {}
    async with Director("cpu", executor=executor) as director:

        def bare() -> Awaitable[Any]:
            return actor.call.remote()  # type: ignore[no-any-return]

        def directed() -> Awaitable[Any]:
            return director.run(nothing)

        for callers in (1, 8):
            await pace(bare, callers, 100)
            await pace(directed, callers, 100)
            pairs = [(await pace(bare, callers, calls), await pace(directed, callers, calls)) for _ in range(ROUNDS)]
            found[f"{callers} callers"] = {
                "bare_us": _median(bare for bare, _ in pairs),
                "director_us": _median(directed for _, directed in pairs),
                "added": round(statistics.median(directed / bare for bare, directed in pairs) - 1, 3),
                "each": [round(directed / bare - 1, 3) for bare, directed in pairs],
            }
    ray.kill(actor)
    return found


async def block(stop: asyncio.Event) -> None:
    """Hold the loop for 20 of every 40 ms."""
    while not stop.is_set():
        time.sleep(0.02)  # noqa: ASYNC251 - that is what it is for
        await asyncio.sleep(0.02)


async def fed(executor: RayExecutor, jobs: int) -> dict[str, Any]:
    """Jobs of 10 ms on 4 actors, all submitted at once: the share of slot time in which a job runs."""
    found = {}
    async with Director("cpu:4", executor=executor, max_queue=None) as director:
        await asyncio.gather(*[director.run(sleep, 0.01) for _ in range(40)])
        for name in ("idle loop", "loop blocked 20 of 40 ms"):
            shares = []
            for _ in range(ROUNDS):
                stop = asyncio.Event()
                blocking = asyncio.create_task(block(stop)) if name != "idle loop" else None
                began = time.perf_counter()
                ran = await asyncio.gather(*[director.submit(sleep, 0.01) for _ in range(jobs)])
                wall = time.perf_counter() - began
                stop.set()
                if blocking is not None:
                    await blocking
                shares.append(sum(ran) / (wall * 4))
            found[name] = {"busy": round(statistics.median(shares), 4), "each": [round(each, 4) for each in shares]}
    return found


PARTS = ("round trip", "10 ms on 4 actors")


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """All parts that are asked for."""
    executor = RayExecutor()
    parts: dict[str, Callable[[], Awaitable[Any]]] = {
        PARTS[0]: lambda: round_trips(executor, int(400 * args.scale)),
        PARTS[1]: lambda: fed(executor, int(1000 * args.scale)),
    }
    found = {}
    for name, part in parts.items():
        if args.part in name:
            found[name] = await part()
            print(json.dumps({name: found[name]}, indent=2), flush=True)
    return found


def arguments(description: str | None, parts: Collection[str]) -> argparse.ArgumentParser:
    """What a benchmark of a cluster is asked for; a part that none is called is an error."""

    def part(words: str) -> str:
        if not any(words in name for name in parts):
            raise argparse.ArgumentTypeError(f"{words!r} is in none of these names: {'; '.join(parts)}")
        return words

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--part", type=part, default="", help="only those with this in their names")
    return parser


@contextmanager
def cluster() -> Iterator[None]:
    """One of its own on this machine, whatever others there are."""
    import ray

    ray.init(
        address="local",
        num_cpus=6,
        object_store_memory=150 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def main() -> None:
    """Start a cluster on this machine, measure, and end it."""
    parser = arguments(__doc__, PARTS)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times as much work")
    args = parser.parse_args()
    with cluster():
        asyncio.run(run(args))


def _median(values: Any) -> float:
    return round(statistics.median(values) * 1e6, 1)


if __name__ == "__main__":
    main()
