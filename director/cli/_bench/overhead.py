"""The overhead of a job that does nothing."""

from __future__ import annotations

import asyncio
import gc
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from director.cli._bench.calls import noop
from director.cli._bench.contenders import (
    DIRECTOR,
    EVERYBODY,
    POOL,
    RUN_IN_EXECUTOR,
    SEMAPHORES,
    TO_THREAD,
    Contender,
    OpenContender,
    present,
)
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

QUICK_ONES = (POOL, RUN_IN_EXECUTOR, TO_THREAD, SEMAPHORES, DIRECTOR)
WARM_UP = 8  # jobs per slot before the measurement, so that threads exist and caches are filled


async def _warm(slots: int, seat: OpenContender) -> None:
    await seat.gather([seat.submit(noop) for _ in range(WARM_UP * slots)])
    gc.collect()  # garbage of earlier measurements must not count here


async def gathered(contender: Contender, slots: int, count: int) -> float:
    """Microseconds for each of `count` jobs, all submitted first, then waited for at once."""
    async with contender.open(slots) as seat:
        await _warm(slots, seat)
        began = time.perf_counter()
        await seat.gather([seat.submit(noop) for _ in range(count)])
        return (time.perf_counter() - began) / count * 1e6


async def awaited_in_turn(contender: Contender, slots: int, count: int) -> float:
    """Microseconds for each of `count` jobs, all submitted first, then waited for one after the other."""
    async with contender.open(slots) as seat:
        await _warm(slots, seat)
        began = time.perf_counter()
        await seat.in_turn([seat.submit(noop) for _ in range(count)])
        return (time.perf_counter() - began) / count * 1e6


async def round_trip(contender: Contender, callers: int, count: int) -> float:
    """Microseconds for each of `count` jobs, made by `callers` callers that each wait for one before the next."""
    async with contender.open(callers) as seat:
        await _warm(callers, seat)
        began = time.perf_counter()
        await seat.closed(callers, count // callers, noop)
        return (time.perf_counter() - began) / count * 1e6


def bursts(effort: Effort) -> Sheet:
    """A burst of no-op jobs on two slots."""
    sheet = Sheet()
    count = effort.pick(20_000, 2_000)
    for contender in turns(present(effort.pick(EVERYBODY, QUICK_ONES)), rounds=5):
        sheet.add(contender.name, "gather", "µs", asyncio.run(gathered(contender, 2, count)))
        sheet.add(contender.name, "in turn", "µs", asyncio.run(awaited_in_turn(contender, 2, count)))
    return sheet


def round_trips(effort: Effort) -> Sheet:
    """One caller, and eight."""
    sheet = Sheet()
    count = effort.pick(5_000, 1_200)
    for contender in turns(present(effort.pick(EVERYBODY, QUICK_ONES)), rounds=5):
        for callers, figure in ((1, "1 caller"), (8, "8 callers")):
            sheet.add(contender.name, figure, "µs", asyncio.run(round_trip(contender, callers, count)))
    return sheet


def many_slots(effort: Effort) -> Sheet:
    """A burst of no-op jobs on 4 and on 1,000 slots."""
    sheet = Sheet()
    count = effort.pick(20_000, 4_000)
    for contender in turns(effort.pick((POOL, RUN_IN_EXECUTOR, DIRECTOR), (POOL, DIRECTOR)), rounds=effort.pick(5, 3)):
        for slots, figure in ((4, "4 slots"), (1000, "1,000 slots")):
            sheet.add(contender.name, figure, "µs", asyncio.run(awaited_in_turn(contender, slots, count)))
    return sheet


def _loops() -> dict[str, Callable[[], AbstractEventLoop]]:
    loops: dict[str, Callable[[], AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


def loops(effort: Effort) -> Sheet:
    """A Director on asyncio's own loop and on uvloop."""
    sheet = Sheet()
    count = effort.pick(20_000, 2_000)
    for name, factory in turns(list(_loops().items()), rounds=effort.pick(5, 3)):
        with asyncio.Runner(loop_factory=factory) as runner:
            sheet.add(f"director, {name}", "gather", "µs", runner.run(gathered(DIRECTOR, 2, count)))
            sheet.add(f"director, {name}", "in turn", "µs", runner.run(awaited_in_turn(DIRECTOR, 2, count)))
            sheet.add(f"director, {name}", "1 caller", "µs", runner.run(round_trip(DIRECTOR, 1, count)))
            sheet.add(f"director, {name}", "8 callers", "µs", runner.run(round_trip(DIRECTOR, 8, count)))
    return sheet
