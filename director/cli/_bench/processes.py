"""Jobs in other processes: the cost of a call, with a busy event loop, and with a large array."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import multiprocessing
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from director.cli._bench.calls import Array, die, noop, one_millisecond, process_id, twenty_milliseconds
from director.cli._bench.contenders import Contender, OpenContender
from director.cli._bench.lost import PERIOD, SETTLING, SPARE, Burden, Loss, block, carry, compute, loss, nothing
from director.cli._bench.sheet import Effort, Sheet, bare_time, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SLOTS = 4
ARRAY = 25_000_000  # bytes: a batch of 41 pictures of 448 x 448
WARM_UP = 50  # calls that are not counted
INTERPRETER = "an interpreter that imports director"
BURDENS = {"idle loop": nothing, "loop blocked": block, "loop in Python": compute}


# ---- contenders


@asynccontextmanager
async def _pool(slots: int) -> AsyncIterator[OpenContender]:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with concurrent.futures.ProcessPoolExecutor(slots, mp_context=context) as pool:
        offload = partial(asyncio.get_running_loop().run_in_executor, pool)
        yield OpenContender(offload, offload)


@asynccontextmanager
async def _anyio(slots: int) -> AsyncIterator[OpenContender]:
    from anyio import CapacityLimiter
    from anyio.to_process import run_sync

    call = partial(run_sync, limiter=CapacityLimiter(slots))
    yield OpenContender(lambda job: asyncio.create_task(call(job)), call)


@asynccontextmanager
async def _director(slots: int) -> AsyncIterator[OpenContender]:
    from director import Director

    async with Director(f"cpu:{slots}", max_queue=None, executor="process") as director:
        yield OpenContender(director.submit, director.run)


PROCESS_POOL = Contender("ProcessPoolExecutor, spawned", _pool)
ANYIO_PROCESS = Contender("anyio.to_process + limiter", _anyio)
DIRECTOR_PROCESS = Contender("director, processes", _director)
EVERYBODY = (PROCESS_POOL, ANYIO_PROCESS, DIRECTOR_PROCESS)
QUICK_ONES = (PROCESS_POOL, DIRECTOR_PROCESS)


async def _warm(slots: int, seat: OpenContender) -> None:
    """Wait until every process has been started and has imported what it needs."""
    for _ in range(2):
        await seat.gather([seat.submit(twenty_milliseconds) for _ in range(4 * slots)])
    gc.collect()


# ---- experiments


async def _round_trip(contender: Contender, callers: int, count: int) -> float:
    async with contender.open(callers) as seat:
        await _warm(callers, seat)
        await seat.closed(callers, WARM_UP, noop)
        began = time.perf_counter()
        await seat.closed(callers, count // callers, noop)
        return (time.perf_counter() - began) / count * 1e6


def round_trips(effort: Effort) -> Sheet:
    """A no-op, by one caller and by eight with a process each."""
    sheet = Sheet()
    count = effort.pick(2_000, 500)
    for contender in turns(EVERYBODY, rounds=effort.pick(5, 3)):
        for callers, figure in effort.pick(((1, "1 caller"), (8, "8 callers")), ((1, "1 caller"),)):
            sheet.add(contender.name, figure, "µs", asyncio.run(_round_trip(contender, callers, count)))
    return sheet


async def _watch(seat: OpenContender, job: Callable[[], tuple[int, int]], burden: Burden, window: float) -> Loss:
    """Keep the slots busy while the loop runs `burden`; each job returns its own times."""
    await _warm(SLOTS, seat)
    bare = bare_time(job, 20)
    handles = [seat.submit(job) for _ in range(round(SPARE * SLOTS * window / bare) + SLOTS)]
    await asyncio.sleep(SETTLING)
    opened = time.monotonic_ns()
    await carry(burden, window)
    closed = time.monotonic_ns()
    for handle in handles[round(SLOTS * window / bare) :]:
        handle.cancel()  # jobs of the window were submitted before
    ended = await asyncio.gather(*handles, return_exceptions=True)
    return loss([span for span in ended if isinstance(span, tuple)], bare, SLOTS, (opened, closed))


async def _watch_all(contender: Contender, job: Callable[[], tuple[int, int]], effort: Effort) -> dict[str, Loss]:
    window = PERIOD * effort.pick(12, 5)
    async with contender.open(SLOTS) as seat:
        return {name: await _watch(seat, job, burden, window) for name, burden in BURDENS.items()}


def lost_1ms(effort: Effort) -> Sheet:
    """Slot time lost with jobs of 1 ms."""
    return _lost(effort, one_millisecond)


def lost_20ms(effort: Effort) -> Sheet:
    """Slot time lost with jobs of 20 ms."""
    return _lost(effort, twenty_milliseconds)


def _lost(effort: Effort, job: Callable[[], tuple[int, int]]) -> Sheet:
    """Slot time lost, with a queue that is never empty, for each kind of loop."""
    sheet = Sheet()
    for contender in turns(effort.pick(EVERYBODY, QUICK_ONES), rounds=effort.pick(5, 3)):
        for name, lost_there in asyncio.run(_watch_all(contender, job, effort)).items():
            sheet.add(contender.name, name, "%", 100 * lost_there.total)
            sheet.add(contender.name, f"between jobs: {name}", "%", 100 * lost_there.between)
    return sheet


async def _carry_array(contender: Contender, count: int) -> float:
    array = Array(bytearray(ARRAY))
    async with contender.open(1) as seat:
        await _warm(1, seat)
        for _ in range(2):
            await seat.call(array)
        began = time.perf_counter()
        for _ in range(count):
            await seat.call(array)
        return (time.perf_counter() - began) / count * 1e3


def arrays(effort: Effort) -> Sheet:
    """25 MB there and back."""
    sheet = Sheet()
    for contender in turns(effort.pick(EVERYBODY, QUICK_ONES), rounds=effort.pick(5, 3)):
        sheet.add(contender.name, "there and back", "ms", asyncio.run(_carry_array(contender, effort.pick(10, 3))))
    return sheet


async def _recover() -> dict[str, float]:
    """Milliseconds from nothing to the first answer, from a death to its error, from there to the next answer."""
    async with DIRECTOR_PROCESS.open(1) as seat:
        moments = [time.perf_counter()]
        for job in (process_id, noop, die, process_id):
            await asyncio.gather(seat.submit(job), return_exceptions=True)
            moments.append(time.perf_counter())
    started, _, died, again = ((after - before) * 1e3 for before, after in itertools.pairwise(moments))
    return {"first answer": started, "death noticed": died, "serving again": again}


def recovery(effort: Effort) -> Sheet:
    """How long it takes to start a child, to detect its death, and to replace it.

    Other contenders don't replace children.
    """
    sheet = Sheet()
    for _ in turns([DIRECTOR_PROCESS], rounds=effort.pick(9, 3)):
        for figure, milliseconds in asyncio.run(_recover()).items():
            sheet.add(DIRECTOR_PROCESS.name, figure, "ms", milliseconds)
    for _ in turns([INTERPRETER], rounds=effort.pick(9, 3)):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import director"], check=True)
        sheet.add(INTERPRETER, "first answer", "ms", (time.perf_counter() - began) * 1e3)
    return sheet
