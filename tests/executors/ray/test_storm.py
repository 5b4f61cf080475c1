"""Whose value is it: many callers, streams, references, cancellations, killed actors; each value names its owner.

``DIRECTOR_STORM_VALUES=10000`` makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import director
from director import Director, HealthRules, WorkerDied
from executors.ray import work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device

VALUES = int(os.environ.get("DIRECTOR_STORM_VALUES", "1000"))
CALLERS = 24


def filled(owner: int, size: int) -> bytes:
    return owner.to_bytes(8, "little") * (size // 8)


def own(device: Device, owner: int, size: int, seconds: float, given: Any) -> tuple[int, bytes, Any]:
    """Whose it is, a value of some size that says so too, and what was given."""
    assert device.kind == "cuda" or os.environ["CUDA_VISIBLE_DEVICES"] == str(device.index)
    director.report(owner)
    time.sleep(seconds)
    return owner, filled(owner, size), given


def own_stream(_device: Any, owner: int, count: int, size: int) -> Iterator[tuple[int, int, bytes]]:
    for number in range(count):
        yield owner, number, filled(owner, size)


class Storm:
    """Callers and what they got."""

    def __init__(self, pool: Director, values: int) -> None:
        self.pool = pool
        self.left = values
        self.seen: Counter[str] = Counter()
        self.random = random.Random(7)
        self.owner = 0

    def size(self) -> int:
        kind = self.random.random()
        return 64 if kind < 0.9 else self.random.randrange(4096, 65536) if kind < 0.99 else 2 << 20

    async def caller(self) -> None:
        while self.left > 0:
            self.owner += 1
            kind = self.random.random()
            if kind < 0.2:
                await self.read(self.owner)
            elif kind < 0.35:
                await self.give_up(self.owner)
            else:
                await self.ask(self.owner, with_reference=kind > 0.85)

    def check(self, is_right: bool) -> None:
        self.left -= 1
        self.seen["right" if is_right else "foreign"] += 1

    async def ask(self, owner: int, *, with_reference: bool) -> None:
        import ray

        size, seconds = self.size(), self.random.choice((0.0, 0.0, 0.002, 0.01))
        remote: Any = ray.remote
        given: Any = owner
        if with_reference:
            pause = self.random.choice((0.0, 0.05))
            given = remote(num_cpus=0)(later).remote(owner, pause) if pause else ray.put(owner)
        job = self.pool.submit(own, owner, size, seconds, given, retries=3)
        try:
            who, content, back = await job
        except WorkerDied:
            self.seen["lost"] += 1
            return
        self.check((who, back, content) == (owner, owner, filled(owner, size)) and job.progress == owner)

    async def give_up(self, owner: int) -> None:
        job = self.pool.submit(own, owner, self.size(), 0.01, owner)
        await asyncio.sleep(self.random.random() * 0.1)
        job.cancel()
        with suppress(asyncio.CancelledError, WorkerDied):
            who, content, _ = await job
            self.check(who == owner and content[:8] == filled(owner, 8))

    async def read(self, owner: int) -> None:
        count, size = self.random.randrange(1, 30), self.size() % 100_000
        leaves_after = self.random.choice((count, count, 3))
        got = 0
        try:
            async with aclosing(self.pool.stream(own_stream, owner, count, size)) as values:
                async for who, number, content in values:
                    self.check((who, number, content) == (owner, got, filled(owner, size)))
                    got += 1
                    if got >= leaves_after:
                        return
        except WorkerDied:
            self.seen["lost"] += 1
            return
        self.seen["short"] += got != count

    async def kill(self) -> None:
        while self.left > 0:
            await asyncio.sleep(3.0)
            with suppress(Exception):
                os.kill(await self.pool.run(work.process_id, retries=3), signal.SIGKILL)
                self.seen["killed"] += 1


def later(value: int, seconds: float) -> int:
    time.sleep(seconds)
    return value


async def test_every_value_reaches_its_owner(executor: Any) -> None:
    rules = HealthRules(failures=1000)
    async with Director(executor=executor, max_queue=None, health=rules) as pool:
        await asyncio.gather(*[pool.run(own, 0, 64, 0.005, 0) for _ in range(40)])
        before = pool.stats().succeeded
        storm = Storm(pool, VALUES)
        killing = asyncio.create_task(storm.kill())
        async with asyncio.timeout(90 + VALUES / 20):
            await asyncio.gather(*[storm.caller() for _ in range(CALLERS)])
        killing.cancel()
        print(dict(storm.seen))
        assert storm.seen["foreign"] == storm.seen["short"] == 0
        assert storm.seen["right"] >= VALUES
        assert storm.seen["lost"] <= 2 * storm.seen["killed"]
        stats = pool.stats()
        assert before < stats.succeeded
        assert (stats.queued, stats.running) == (0, 0) or stats.running <= len(stats.devices)
