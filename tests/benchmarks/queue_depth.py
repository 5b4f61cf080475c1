"""A long queue: the bytes and microseconds of each job that waits, from ten thousand to a million of them."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from director.cli._bench.calls import noop
from director.cli._bench.catalog import run_apart
from director.cli._bench.contenders import DIRECTOR, SEMAPHORES, Contender
from director.cli._bench.sheet import Effort, Sheet, turns

SLOTS = 4
PEER_LIMIT = 100_000  # tasks: a million of them take minutes to run


@dataclass(frozen=True, slots=True)
class Filled:
    """What a long queue cost, for each job in it.

    Args:
        submit: Microseconds to submit one while all slots are taken.
        total: Microseconds from the first submission to the last result, the time at the gate left out.
        size: Bytes of the process for each waiting job, beyond the caller's own list of handles.
    """

    submit: float
    total: float
    size: float


def fill(contender: Contender, count: int) -> Filled:
    """Queue `count` jobs behind slots that are held, then let all of them run. Wants a fresh process."""
    return asyncio.run(_fill(contender, count))


async def _fill(contender: Contender, count: int) -> Filled:
    async with contender.open(SLOTS) as seat:
        await seat.gather([seat.submit(noop) for _ in range(100)])
        gate = threading.Event()
        held = [seat.submit(lambda *_device: gate.wait()) for _ in range(SLOTS)]
        await asyncio.sleep(0.05)  # every slot stands at the gate
        handles: list[object] = [None] * count  # the caller's own list, made before memory is read
        gc.collect()
        before = _resident_bytes()
        began = time.perf_counter()
        for number in range(count):
            handles[number] = seat.submit(noop)
        await asyncio.sleep(0)  # tasks take their place in the queue
        submitted = time.perf_counter() - began
        after = _resident_bytes()
        began = time.perf_counter()
        gate.set()
        await seat.in_turn(handles)
        drained = time.perf_counter() - began
        await seat.gather(held)
    return Filled(submitted / count * 1e6, (submitted + drained) / count * 1e6, (after - before) / count)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(effort: Effort) -> Sheet:
    """From ten thousand to a million waiting jobs (a hundred thousand in a quick run), each time in a fresh process."""
    sheet = Sheet()
    counts = effort.pick((10_000, 100_000, 1_000_000), (10_000, 100_000))
    most_tasks = effort.pick(PEER_LIMIT, min(counts))
    for contender in turns((SEMAPHORES, DIRECTOR), rounds=effort.pick(5, 2)):
        for count in counts:
            if contender is DIRECTOR or count <= most_tasks:
                _report(sheet, contender, count, run_apart(fill, contender, count))
    return sheet


def _report(sheet: Sheet, contender: Contender, count: int, filled: Filled) -> None:
    sheet.add(contender.name, f"{count:,}: submit", "µs", filled.submit)
    sheet.add(contender.name, f"{count:,}: submit and run", "µs", filled.total)
    sheet.add(contender.name, f"{count:,}: memory", "bytes", filled.size)
