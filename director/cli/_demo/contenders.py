"""Three ways to hand a stream of blocking jobs to devices, each as an application would write it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from director import Director

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from typing import TypeAlias

    from director.cli._demo.trace import Call
    from director.testing import SimulatedDevice

    Work: TypeAlias = Callable[[SimulatedDevice, Call], None]  # blocks while the device works
    HandOut: TypeAlias = Callable[[Sequence[SimulatedDevice], AsyncIterator[Call], Work], Awaitable[None]]


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
    """Whichever GPU is free, by semaphore and `asyncio.to_thread`: each hand-over goes through the event loop."""
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
    """Whichever GPU is free, by a Director: its workers take their next job without the event loop."""
    async with Director(list(devices), max_queue=None) as director:
        jobs = [director.submit(work, call) async for call in calls]
        await asyncio.gather(*jobs)


CONTENDERS: dict[str, HandOut] = {
    "GPU index per item": by_index,
    "semaphore + to_thread": by_semaphore,
    "director": by_director,
}
