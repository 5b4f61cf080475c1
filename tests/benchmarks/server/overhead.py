"""The overhead of a job that does nothing, and the processor time that a burst takes in the server."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.server.calls import parent_id, server_id
from benchmarks.server.contenders import EVERYBODY, FOLDER, PROCESSES, THREADS, folder_of_servers
from director.cli._bench.calls import noop, twenty_milliseconds
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from director.cli._bench.contenders import Contender, OpenContender

SLOTS = 2
WARM_UP = 50  # calls that are not counted
SERVER, LOOP, APPLICATION, WALL = "in the server", "of it the event loop", "in the application", "from end to end"


async def _warm(slots: int, seat: OpenContender) -> None:
    """Wait until every slot has its thread or process."""
    await seat.gather([seat.submit(twenty_milliseconds) for _ in range(4 * slots)])
    await seat.closed(slots, WARM_UP, noop)
    gc.collect()


async def round_trip(contender: Contender, callers: int, count: int) -> tuple[float, float]:
    """Microseconds for each of `count` jobs, made by `callers` callers that each wait for one before the next.

    Returns:
        Those that pass, and those of processors, of all processes together.
    """
    with folder_of_servers():
        async with contender.open(callers) as seat:
            await _warm(callers, seat)
            involved = [os.getpid(), *processes.those_with(FOLDER, os.environ[FOLDER])]
            began, used = time.perf_counter(), sum(map(processes.processor_time, involved))
            await seat.closed(callers, count // callers, noop)
            took, spent = time.perf_counter() - began, sum(map(processes.processor_time, involved)) - used
    return took / count * 1e6, spent / count * 1e6


async def burst(contender: Contender, count: int) -> dict[str, float]:
    """Microseconds for each of `count` jobs, all submitted first: of processors, and from end to end."""
    async with contender.open(SLOTS) as seat:
        await _warm(SLOTS, seat)
        server = int(str(await seat.call(server_id if contender is THREADS else parent_id)))
        before = _times(server)
        await seat.gather([seat.submit(noop) for _ in range(count)])
        return {name: (after - before[name]) / count * 1e6 for name, after in _times(server).items()}


def _times(server: int) -> dict[str, float]:
    return {
        SERVER: processes.processor_time(server),
        LOOP: processes.main_thread_time(server),
        APPLICATION: time.process_time(),
        WALL: time.perf_counter(),
    }


def round_trips(effort: Effort) -> Sheet:
    """One caller, and eight with a slot each."""
    sheet = Sheet()
    count = effort.pick(2_000, 500)
    for contender in turns(EVERYBODY, rounds=effort.pick(5, 3)):
        for callers, figure in effort.pick(((1, "1 caller"), (8, "8 callers")), ((1, "1 caller"),)):
            took, spent = asyncio.run(round_trip(contender, callers, count))
            sheet.add(contender.name, figure, "µs", took)
            sheet.add(contender.name, f"of processors: {figure}", "µs", spent)
    return sheet


def bursts(effort: Effort) -> Sheet:
    """A burst of no-op jobs on two slots of a server."""
    sheet = Sheet()
    for contender in turns((THREADS, PROCESSES), rounds=effort.pick(5, 3)):
        for figure, microseconds in asyncio.run(burst(contender, effort.pick(20_000, 2_000))).items():
            sheet.add(contender.name, figure, "µs", microseconds)
    return sheet
