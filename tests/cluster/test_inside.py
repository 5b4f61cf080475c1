"""A Director in a task of Ray's: on the connection that is there."""

from __future__ import annotations

from typing import Any

from cluster.conftest import SLOW


def test_a_director_in_a_task(executor: Any) -> None:
    import ray

    remote: Any = ray.remote
    found = ray.get(remote(num_cpus=0)(_inside).remote(), timeout=SLOW)
    assert found == (5, True, False)


def _inside() -> tuple[int, bool, bool]:
    import asyncio

    import ray

    from cluster import work
    from director import Director
    from director.ray import RayExecutor

    async def main() -> tuple[int, bool]:
        async with Director(executor=RayExecutor(address="nowhere:1", resources={"solo": 1})) as director:
            job = director.submit(work.echo, 5)
            return await job, await director.run(work.process_id) > 0

    result, ran = asyncio.run(main())
    return result, ran, not ray.is_initialized()  # the task's own connection is left open
