"""Latency of single items in batches, compared with greedy batches without overhead, and throughput."""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
import time
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks import lines
from benchmarks.batchers import DIRECTOR, EVERYBODY, MOST, Batcher, Submit
from director._format import quantile
from director.cli._bench.contenders import present
from director.cli._bench.sheet import Effort, Sheet, bare_time, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

SLOTS = 2
FIXED = 0.005  # s of a call, whatever its size
EACH = 0.0002  # s of each item in it
PEAK = SLOTS * MOST / (FIXED + EACH * MOST)  # items a second, if every batch is full
CALLERS = 4 * SLOTS * MOST  # for a saturated model: more items wait than are in batches
LOADS = (0.50, 0.80, 0.95)
GREEDY = "greedy, exact"
ALONE = "the model alone"


class Batches:
    """The model: a blocking call that sleeps as long as a batch of that size takes, and keeps the sizes.

    Sleeping stands for kernels: the device is busy and the GIL is free.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, items: list[float]) -> list[float]:
        """Occupy the device once."""
        self.sizes.append(len(items))
        time.sleep(FIXED + EACH * len(items))
        return items


def plan(rate: float, count: int, seed: int) -> list[float]:
    """Poisson arrivals, in seconds from the start; the same for the same seed."""
    dice = random.Random(seed)  # a trace, not a secret
    moments, now = [], 0.0
    for _ in range(count):
        now += dice.expovariate(rate)
        moments.append(now)
    return moments


async def serve(submit: Submit, moments: list[float]) -> list[float]:
    """Seconds from the planned moment of each item to its result, on an open loop.

    Arrivals don't wait for earlier results.
    """
    ends = [0.0] * len(moments)

    def note_end(number: int, _: object) -> None:
        ends[number] = time.perf_counter()

    handles = []
    began = time.perf_counter()
    for number, moment in enumerate(moments):
        ahead = began + moment - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        handle = submit(moment)
        handle.add_done_callback(partial(note_end, number))
        handles.append(handle)
    await asyncio.gather(*handles)
    await asyncio.sleep(0)  # the callbacks of the last one
    return [end - began - moment for end, moment in zip(ends, moments, strict=True)]


def exact_loop() -> asyncio.AbstractEventLoop:
    """An event loop with timers in microseconds: the default selector's milliseconds are too coarse."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """What `asyncio.run` does, on an exact loop."""
    with asyncio.Runner(loop_factory=exact_loop) as runner:
        return runner.run(work)


def measure(effort: Effort) -> Sheet:
    """Latencies at three loads, and of greedy batches on the same arrivals; then the saturated throughput."""
    sheet = Sheet()
    batchers = effort.pick(present(EVERYBODY), [DIRECTOR])
    rounds, seconds = effort.pick((5, 1.5), (3, 0.5))
    for load in LOADS:
        count = round(load * PEAK * seconds)
        seeds = {batcher.name: 0 for batcher in batchers}
        for batcher in turns(batchers, rounds):
            seeds[batcher.name] += 1  # every contender gets the same traces
            _add_latencies(sheet, batcher, load, plan(load * PEAK, count, seeds[batcher.name]))
    for contender in turns([None, *batchers], rounds):
        count = round(PEAK * seconds)
        rate = alone(count) if contender is None else run(_saturated(contender, count))
        sheet.add(contender.name if contender else ALONE, "saturated: items", "/s", rate)
    return sheet


def _add_latencies(sheet: Sheet, batcher: Batcher, load: float, moments: list[float]) -> None:
    model = Batches()
    stays = run(_round(batcher, model, moments))
    _report(sheet, batcher.name, load, stays, model.sizes)
    if batcher is DIRECTOR:
        late = bare_time(lambda: time.sleep(FIXED), 20) - FIXED  # how much longer a sleep takes on this machine
        _report(sheet, GREEDY, load, *lines.batches(moments, lambda size: FIXED + EACH * size + late, SLOTS, MOST))


def _report(sheet: Sheet, name: str, load: float, stays: list[float], sizes: list[int]) -> None:
    at = f"{load:.0%}".replace("%", " %")
    sheet.add(name, f"{at}: p50", "ms", 1000 * quantile(sorted(stays), 0.5))
    sheet.add(name, f"{at}: p99", "ms", 1000 * quantile(sorted(stays), 0.99))
    sheet.add(name, f"{at}: batch", "items", fmean(sizes))


async def _round(batcher: Batcher, model: Batches, moments: list[float]) -> list[float]:
    async with batcher.open(SLOTS, model) as submit:
        await _warm(submit, model)
        return await serve(submit, moments)


async def _warm(submit: Submit, model: Batches) -> None:
    await asyncio.gather(*(submit(0.0) for _ in range(4 * SLOTS * MOST)))
    model.sizes.clear()


async def _saturated(batcher: Batcher, count: int) -> float:
    """Items a second when `CALLERS` callers want one each at any time, so that there is always a full batch."""
    model = Batches()

    async def caller() -> None:
        for _ in range(count // CALLERS):
            await submit(0.0)

    async with batcher.open(SLOTS, model) as submit:
        await _warm(submit, model)
        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return count // CALLERS * CALLERS / (time.perf_counter() - began)


def alone(count: int) -> float:
    """Items a second in full batches, on as many threads as there are slots: the limit of the model itself."""
    calls = iter(range(-(-count // MOST)))

    def work(take: Callable[[], object]) -> None:
        model, batch = Batches(), [0.0] * MOST
        while take() is not None:
            model(batch)

    threads = [threading.Thread(target=work, args=(lambda: next(calls, None),)) for _ in range(SLOTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return -(-count // MOST) * MOST / (time.perf_counter() - began)
