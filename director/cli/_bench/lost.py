"""Measures how much of the devices' time is lost between and inside jobs, also while a load keeps the loop busy."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from director.cli._bench.calls import noop
from director.cli._bench.contenders import ANYIO, DIRECTOR, POOL, RUN_IN_EXECUTOR, SEMAPHORES, Contender, OpenContender
from director.cli._bench.sheet import Effort, Sheet, bare_time, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BUSY = 0.020  # s of every period
PERIOD = 0.040  # s
ROW = {"label": "cat", "score": 0.98, "box": [1.5, 2.5, 3.5, 4.5]}

Burden: TypeAlias = "Callable[[], None]"


def nothing() -> None:
    """An idle loop."""


def block() -> None:
    """Hold the loop but not the GIL, as blocking I/O or a C library that releases the GIL does."""
    time.sleep(BUSY)


def compute() -> None:
    """Hold the loop in pure Python, which releases the GIL every 5 ms."""
    until = time.perf_counter() + BUSY
    while time.perf_counter() < until:
        sum(range(100))


class JsonEncoder:
    """Hold the loop and the GIL in one C call that never releases it.

    The call can't be stopped after `BUSY`, so its size is adapted to the time of the last one: otherwise it would take
    longer when other threads use the core.
    """

    def __init__(self) -> None:
        self._rows = 1000
        for _ in range(5):
            self()

    def __call__(self) -> None:
        """Encode for about `BUSY`."""
        rows = [ROW] * self._rows
        began = time.perf_counter()
        json.dumps(rows)
        self._rows = max(1, round(self._rows * BUSY / (time.perf_counter() - began)))


def burdens() -> dict[str, Burden]:
    """Every load by the name that tables print."""
    return {"idle loop": nothing, "loop blocked": block, "loop in Python": compute, "loop in JSON": JsonEncoder()}


async def carry(burden: Burden, seconds: float) -> None:
    """Put `burden` on the running loop at the start of every period, for `seconds`."""
    began = time.perf_counter()
    for start in range(round(seconds / PERIOD)):
        burden()
        await asyncio.sleep(max(0.0, began + (start + 1) * PERIOD - time.perf_counter()))


SETTLING = 0.005  # s from the submission to the window: every slot has begun by then
SPARE = 1.5  # times as many jobs as the slots can do, so that the queue is never empty


EVERYBODY = (POOL, RUN_IN_EXECUTOR, ANYIO, SEMAPHORES, DIRECTOR)
QUICK_ONES = (POOL, SEMAPHORES, DIRECTOR)
QUICK_BURDENS = {"idle loop": nothing, "loop blocked": block}


class Stamped:
    """A sleep that records when it began and ended, by the job's own clock.

    Sleeping stands for a kernel: the device is busy and the GIL is free. A job that must wait for the GIL afterwards
    ends late, as it would with a real kernel. `list.append` is atomic, so slots need no lock between two jobs.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spans: list[tuple[int, int]] = []
        self.over = False  # set once by the measuring task: jobs that are still queued then return at once

    def __call__(self, *_device: object) -> None:
        """Occupy the device once."""
        if self.over:
            return
        began = time.perf_counter_ns()
        time.sleep(self.seconds)
        self.spans.append((began, time.perf_counter_ns()))


@dataclass(frozen=True, slots=True)
class Loss:
    """Shares of the slots' time, 1.0 being all of it.

    Args:
        total: 1 - jobs done x time of the bare call / time of the slots.
        between: The part in which no job was on the slot; the rest was lost inside the jobs.
    """

    total: float
    between: float


def loss(spans: Iterable[tuple[int, int]], bare: float, slots: int, window: tuple[int, int]) -> Loss:
    """The time that `slots` slots lost in a window.

    A job that is partly in the window counts by that part.

    Args:
        spans: When each job began and ended, in nanoseconds.
        bare: Seconds of the same call alone.
        slots: How many jobs could have run at once.
        window: When it began and ended, in nanoseconds.
    """
    opened, closed = window
    jobs = 0.0
    occupied = 0
    for began, ended in spans:
        inside = min(ended, closed) - max(began, opened)
        if inside > 0:
            jobs += inside / (ended - began)
            occupied += inside
    available = slots * (closed - opened)
    return Loss(1 - jobs * bare * 1e9 / available, 1 - occupied / available)


async def watch(seat: OpenContender, slots: int, seconds: float, burden: Burden, window: float) -> Loss:
    """Keep `slots` slots busy for `window` seconds while the loop runs `burden`.

    Args:
        seat: The opened contender.
        slots: For how many slots it was opened.
        seconds: How long a job occupies its device.
        burden: What else the loop does.
        window: How long to watch, in seconds.
    """
    await seat.gather([seat.submit(noop) for _ in range(4 * slots)])
    job = Stamped(seconds)
    bare = bare_time(Stamped(seconds), max(3, round(0.05 / seconds)))
    handles = [seat.submit(job) for _ in range(round(SPARE * slots * window / seconds) + slots)]
    await asyncio.sleep(SETTLING)
    opened = time.perf_counter_ns()
    await carry(burden, window)
    closed = time.perf_counter_ns()
    job.over = True
    await seat.gather(handles)
    return loss(job.spans, bare, slots, (opened, closed))


def _report(sheet: Sheet, contender: Contender, figure: str, lost: Loss) -> None:
    sheet.add(contender.name, figure, "%", 100 * lost.total)
    sheet.add(contender.name, f"between jobs: {figure}", "%", 100 * lost.between)


def measure(effort: Effort, seconds: float) -> Sheet:
    """Four slots and a queue that is never empty, with each kind of busy loop."""
    sheet = Sheet()
    contenders = effort.pick(EVERYBODY, QUICK_ONES)
    window = PERIOD * effort.pick(8, 3) if seconds < PERIOD / 4 else PERIOD * effort.pick(15, 6)
    chosen = effort.pick(burdens(), QUICK_BURDENS)
    for name, burden in chosen.items():
        for contender in turns(contenders, rounds=effort.pick(5, 3)):
            _report(sheet, contender, name, asyncio.run(_piece(contender, 4, seconds, burden, window)))
    return sheet


async def _piece(contender: Contender, slots: int, seconds: float, burden: Burden, window: float) -> Loss:
    async with contender.open(slots) as seat:
        return await watch(seat, slots, seconds, burden, window)


def many_slots(effort: Effort) -> Sheet:
    """64 slots with jobs of 20 ms: more devices than the machine has cores."""
    sheet = Sheet()
    contenders = effort.pick(EVERYBODY, QUICK_ONES)
    window = PERIOD * effort.pick(15, 6)
    for contender in turns(contenders, rounds=effort.pick(5, 3)):
        _report(sheet, contender, "64 slots, 20 ms", asyncio.run(_piece(contender, 64, 0.020, nothing, window)))
    return sheet
