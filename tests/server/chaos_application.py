"""An application that does all at once until it is told to stop, and then accounts for each of its jobs."""

from __future__ import annotations

import asyncio
import operator
import random
import sys
from contextlib import suppress
from functools import partial
from typing import Any

from harness import served

from director import Director, JobError, Model, QueueFull

MODEL = Model(served.load)
Outcomes = dict[str, int]


async def use(director: Director, chance: random.Random, outcomes: Outcomes) -> None:
    """One job of any kind; what becomes of it is counted."""
    kind = chance.randrange(8)
    retries = chance.choice((0, 2))
    limit = chance.choice((None, None, None, chance.random() / 50))
    if kind >= 6:
        limit = None  # of 6, asyncio logs an exception that comes in the same turn of the event loop as the timeout
    try:
        async with asyncio.timeout(limit):
            if kind == 0:
                assert await director.run(served.add, 1, 2, retries=retries) == 3
            elif kind == 1:
                assert await director.run(served.size, bytes(300_000), retries=retries) == 300_000
            elif kind == 2:
                await director.run(served.replica, model=MODEL, retries=retries)
            elif kind == 3:
                async with director.stream(served.count, 40, buffer=4) as stream:
                    assert [value async for value in stream] == [*range(40)]
            elif kind == 4:
                async with director.lease():
                    await asyncio.sleep(0)
            elif kind == 5:
                assert [n async for n in director.map(partial(served.add, right=1), range(5))] == [1, 2, 3, 4, 5]
            elif kind == 6:
                await director.run(served.fail, "as it should")
            else:
                submit = partial(director.as_executor().submit, operator.add, 1, 2)
                assert await asyncio.to_thread(lambda: submit().result()) == 3
    except (served.Odd, QueueFull, JobError, TimeoutError) as error:
        name = type(error).__name__
    else:
        name = "done"
    outcomes[name] = outcomes.get(name, 0) + 1


async def main(seed: int) -> None:
    chance, outcomes = random.Random(seed), Outcomes()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)
    director = Director("simulated:2", server="chaos", server_linger=0.0, max_queue=200)
    async with director:
        print("ready", flush=True)
        while not stopped.is_set():
            users = [asyncio.ensure_future(use(director, chance, outcomes)) for _ in range(20)]
            await asyncio.gather(*users)
        answer: Any = None
        while answer is None:  # the last server may have been killed a moment ago
            with suppress(JobError):
                answer = await director.run(served.add, 20, 22)
        await director.drain()
    print(answer, outcomes, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
