"""What an open Director with nothing to do costs: processor time, and how often any of its threads wakes up."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from director.cli._bench.calls import noop
from director.cli._bench.contenders import DIRECTOR, Contender, OpenContender
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SETTLING = 0.5  # s: parked workers have left by then


@asynccontextmanager
async def _bare_loop(_slots: int) -> AsyncIterator[OpenContender]:
    async def call(job: Callable[..., object]) -> object:
        return job()

    yield OpenContender(call, call)


BARE_LOOP = Contender("a loop without a director", _bare_loop)


def wake_ups() -> int:
    """How often any thread of this process has gone to sleep so far: each wake-up but the last was followed by one."""
    total = 0
    for status in Path("/proc/self/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


async def rest(contender: Contender, seconds: float) -> tuple[float, float]:
    """Wake-ups a second, and percent of a core, of an open contender that has nothing to do."""
    async with contender.open(4) as seat:
        await seat.gather([seat.submit(noop) for _ in range(100)])
        await asyncio.sleep(SETTLING)
        woken, worked = wake_ups(), time.process_time()
        await asyncio.sleep(seconds)  # the one wake-up that a bare loop has, too
        return (wake_ups() - woken) / seconds, (time.process_time() - worked) / seconds * 100


def measure(effort: Effort) -> Sheet:
    """An open Director with four devices that has done some work, beside a loop without one."""
    sheet = Sheet()
    seconds = effort.pick(2.0, 0.5)
    for contender in turns((BARE_LOOP, DIRECTOR), rounds=effort.pick(5, 1)):
        woken, worked = asyncio.run(rest(contender, seconds))
        sheet.add(contender.name, "wake-ups", "/s", woken)
        sheet.add(contender.name, "processor", "% of a core", worked)
    return sheet
