"""Three ways to run a stream of blocking jobs on devices, each as an application would write it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from director import Director
from director.cli._demo.trace import Call, Run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from typing import TypeAlias

    from director.testing import SimulatedDevice

    Work: TypeAlias = Callable[[SimulatedDevice, Call], None]  # blocks while the device works
    Schedule: TypeAlias = Callable[[Sequence[SimulatedDevice], AsyncIterator[Call], Work], Awaitable[None]]


async def by_index(devices: Sequence[SimulatedDevice], calls: AsyncIterator[Call], work: Work) -> None:
    """A GPU index per item, round robin: items wait for their GPU while another may be idle."""
    locks = [asyncio.Lock() for _ in devices]

    async def one(call: Call) -> None:
        index = call.number % len(devices)
        async with locks[index]:
            await asyncio.to_thread(work, devices[index], call)

    async with asyncio.TaskGroup() as group:
        async for call in calls:
            group.create_task(one(call))


async def by_semaphore(devices: Sequence[SimulatedDevice], calls: AsyncIterator[Call], work: Work) -> None:
    """A free GPU, by semaphore and `asyncio.to_thread`: the event loop starts each job."""
    semaphore = asyncio.Semaphore(len(devices))
    free = list(devices)

    async def one(call: Call) -> None:
        async with semaphore:
            device = free.pop()
            try:
                await asyncio.to_thread(work, device, call)
            finally:
                free.append(device)

    async with asyncio.TaskGroup() as group:
        async for call in calls:
            group.create_task(one(call))


async def by_director(devices: Sequence[SimulatedDevice], calls: AsyncIterator[Call], work: Work) -> None:
    """A free GPU, by a Director: its workers take their next job without the event loop."""
    async with Director(list(devices), max_queue=None) as director:
        jobs = [director.submit(work, call) async for call in calls]
        await asyncio.gather(*jobs)


CONTENDERS: dict[str, Schedule] = {
    "GPU index per item": by_index,
    "semaphore + to_thread": by_semaphore,
    "director": by_director,
}


BLOCKED, PERIOD = 0.020, 0.040  # s: how long the busy loop is blocked, and how often


@dataclass(slots=True)
class Recording:
    """The runs so far. Appended to by the devices' threads; read by the view at any time.

    Args:
        devices: How many there are.
        runs: Those that have ended.
        running: For each device, the arrival and start of what runs on it.
        start: `time.perf_counter` when the stream began.
        end: The same when all of it was done; 0 before.
    """

    devices: int
    runs: list[Run] = field(default_factory=list)
    running: dict[int, tuple[float, float]] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)
    end: float = 0.0

    @property
    def now(self) -> float:
        """Seconds since the start, or until the end."""
        return (self.end or time.perf_counter()) - self.start

    def work(self, device: SimulatedDevice, call: Call) -> None:
        """The job: occupy the device, and measure from inside."""
        started = time.perf_counter() - self.start
        self.running[device.index] = (call.arrival, started)
        device.work(call.seconds)
        self.runs.append(Run(device.index, call.arrival, started, time.perf_counter() - self.start))
        self.running.pop(device.index, None)


async def measure(
    recording: Recording, schedule: Schedule, devices: Sequence[SimulatedDevice], trace: list[Call], *, busy: bool
) -> None:
    """Have `schedule` run the stream; `recording` has the runs afterwards.

    Args:
        recording: A new one.
        schedule: The contender.
        devices: Simulated.
        trace: The stream of jobs.
        busy: Block the event loop for 20 ms of every 40, as a blocking call in another coroutine would.
    """
    _give_threads(len(devices))
    recording.start = time.perf_counter()
    async with _disturbed() if busy else contextlib.nullcontext():
        await schedule(devices, _arrivals(trace, recording.start), recording.work)
    recording.end = recording.start + max(run.ended for run in recording.runs)


async def _arrivals(trace: list[Call], start: float) -> AsyncIterator[Call]:
    """The calls, each at its arrival time; late if the loop is late, which counts as waiting."""
    for call in trace:
        pause = start + call.arrival - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        yield call


@contextlib.asynccontextmanager
async def _disturbed() -> AsyncIterator[None]:
    async def disturb() -> None:
        while True:
            time.sleep(BLOCKED)  # noqa: ASYNC251 -- blocking the loop is what is measured
            await asyncio.sleep(PERIOD - BLOCKED)

    task = asyncio.create_task(disturb())
    try:
        yield
    finally:
        task.cancel()


def _give_threads(devices: int) -> None:
    """Give `asyncio.to_thread` enough threads.

    Its default on small machines would slow down the contenders that use it.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max(32, devices)))
