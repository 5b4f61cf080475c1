"""Room in the queue is reserved for all applications together: `submit` refuses at once, and no kill loses room."""

# ruff: noqa: ASYNC220 -- what waits here is the test alone

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from executors.process.leaks import stop
from harness import served

from director import Director, JobState, QueueFull
from server.conftest import PATIENCE, server_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs


async def hold_slot(director: Director, holder: Holder) -> Any:
    """A job that holds the only slot."""
    held = director.submit(served.hold, holder.path)
    await holder.begun()
    await until(lambda: held.state is JobState.RUNNING)
    return held


async def test_the_bound_of_a_tenant_refuses_at_once_in_every_application(
    make: Make, hold: Callable[[], Holder]
) -> None:
    options: dict[str, Any] = {"max_queue_per_tenant": {"a": 2, ("b", 1): 1}}
    one, two, holder = await make(**options), await make(**options), hold()
    held = await hold_slot(one, holder)
    waiting = [one.submit(served.add, 1, 1, tenant="a"), two.submit(served.add, 1, 2, tenant="a")]
    waiting.append(two.submit(served.add, 1, 3, tenant=("b", 1.0)))

    for director in (one, two):
        for tenant, bound in (("a", 2), (("b", 1), 1)):
            with pytest.raises(QueueFull) as refusal:
                director.submit(served.add, 0, 0, tenant=tenant)
            assert (refusal.value.limit, refusal.value.waiting) == (bound, bound)
        waiting.append(director.submit(served.add, 1, 4, tenant="another"))
    waiting[0].cancel()
    waiting.append(two.submit(served.add, 1, 5, tenant="a"))

    holder.let_go()
    await held
    assert await asyncio.wait_for(asyncio.gather(*waiting[1:]), PATIENCE) == [3, 4, 5, 5, 6]


async def test_refusals_of_all_applications_and_the_server_are_counted(make: Make, hold: Callable[[], Holder]) -> None:
    one, two = await make("simulated:2", max_queue=1), await make("simulated:2", max_queue=1)
    holder = hold()
    held = one.submit(served.hold, holder.path, devices="simulated:0")
    await holder.begun()
    await until(lambda: held.state is JobState.RUNNING)
    waiting = [one.submit(served.add, 1, 1, devices="simulated:0")]
    late = one.submit(served.add, 1, 1, devices="simulated:0")  # there is a free slot, which may not run it
    with pytest.raises(QueueFull):
        await asyncio.wait_for(late, PATIENCE)
    for director in (one, two):
        await until(lambda director=director: director.stats().rejected == 1)  # type: ignore[misc]

    other = hold()
    waiting.append(one.submit(served.hold, other.path, devices="simulated:1"))
    await other.begun()
    await until(lambda: waiting[1].state is JobState.RUNNING)
    for _ in range(2):
        with pytest.raises(QueueFull):
            one.submit(served.add, 0, 0)
    assert (one.stats().rejected, two.stats().rejected) == (3, 3)

    for each in (holder, other):
        each.let_go()
    await asyncio.wait_for(asyncio.gather(held, *waiting), PATIENCE)
    await one.close()
    assert one.stats().rejected == 3
    assert two.stats().rejected == 3, "those of an application that has gone too"


@pytest.mark.parametrize("options", [{"max_queue": 5}, {"max_queue_per_tenant": 5, "max_queue": None}])
async def test_what_was_accepted_is_not_refused_later(
    make: Make, hold: Callable[[], Holder], options: dict[str, Any]
) -> None:
    directors, holder = [await make(**options) for _ in range(3)], hold()
    held = await hold_slot(directors[0], holder)
    jobs = []
    for number in range(60):
        try:
            jobs.append(directors[number % 3].submit(served.add, number, 0, tenant="a"))
        except QueueFull:
            jobs.pop(0).cancel()  # the server learns of it after the next submission of another application

    assert len(jobs) <= 5
    holder.let_go()
    await held
    await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE)


async def test_room_that_was_reserved_is_there_though_the_server_learns_late_who_has_left(
    make: Make, hold: Callable[[], Holder]
) -> None:
    one, two, holder = await make(max_queue=3), await make(max_queue=3), hold()
    held = await hold_slot(one, holder)
    jobs = [one.submit(served.add, 0, 0) for _ in range(2)]

    async def sent() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    await until(lambda: one.stats().queued == 2)
    stop(server_of(one))
    try:
        jobs.append(two.submit(served.add, 0, 1))
        await sent()  # so the server reads what `two` has sent first
        jobs.pop(0).cancel()
        await sent()
        jobs.append(two.submit(served.add, 0, 2))
        with pytest.raises(QueueFull):
            two.submit(served.add, 0, 3)
        await sent()
    finally:
        os.kill(server_of(one), signal.SIGCONT)
    holder.let_go()

    await held
    assert await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE) == [0, 1, 2]


APPLICATION = """
import asyncio, sys
from director import Director, QueueFull
from harness import served
async def main():
    director = Director("simulated:1", server="s", server_linger=0.0, max_queue=4, max_queue_per_tenant=2)
    await director.start()
    for tenant in "aabb":
        director.submit(served.add, 1, 1, tenant=tenant)
    print("full", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_the_room_of_an_application_that_is_killed_is_free(
    make: Make, hold: Callable[[], Holder], tmp_path: Path
) -> None:
    director, holder = await make(max_queue=4, max_queue_per_tenant=2), hold()
    held = await hold_slot(director, holder)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", APPLICATION]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as application:
        assert application.stdout is not None
        await asyncio.wait_for(asyncio.to_thread(application.stdout.readline), PATIENCE)
        with pytest.raises(QueueFull):
            director.submit(served.add, 0, 0)
        application.kill()

    jobs: list[Any] = []

    def is_free() -> bool:
        try:
            jobs.append(director.submit(served.add, 1, 1, tenant="a"))
        except QueueFull:
            return False
        return True

    await until(is_free)
    jobs += [director.submit(served.add, 1, 1, tenant=tenant) for tenant in "abb"]
    holder.let_go()
    await held
    assert await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE) == [2] * 4


async def test_bounds_hold_when_the_server_was_lost(make: Make, tmp_path: Path) -> None:
    director = await make(max_queue_per_tenant=2)
    held = director.submit(served.wait_cancelled, str(tmp_path / "w"), retries=5)
    await until(lambda: held.attempts == 1)  # here, too, it is known that the slot is taken
    waiting = [director.submit(served.add, 1, 1, tenant="a", retries=5) for _ in range(2)]

    os.kill(server_of(director), signal.SIGKILL)
    await until(lambda: held.attempts == 2)
    with pytest.raises(QueueFull):
        director.submit(served.add, 0, 0, tenant="a")

    held.cancel()
    assert await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE) == [2, 2]
