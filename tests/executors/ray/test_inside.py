"""A Director within Ray, in a task or an actor, on the connection that is there; and when these are ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from executors.ray.conftest import SLOW
from executors.ray.test_death import later


def test_a_director_in_a_task(executor: Any) -> None:
    import ray

    remote: Any = ray.remote
    found = ray.get(remote(num_cpus=0)(_inside).remote(), timeout=SLOW)
    assert found == (5, True, False)


def _inside() -> tuple[int, bool, bool]:
    import asyncio

    import ray

    from director import Director
    from director.ray import RayExecutor
    from executors.ray import work

    async def main() -> tuple[int, bool]:
        async with Director(executor=RayExecutor(address="nowhere:1", resources={"solo": 1})) as director:
            job = director.submit(work.echo, 5)
            return await job, await director.run(work.process_id) > 0

    result, ran = asyncio.run(main())
    return result, ran, not ray.is_initialized()  # the task's own connection is left open


async def test_a_task_that_is_cancelled_frees_its_devices(executor: Any, tmp_path: Path) -> None:
    import ray

    remote: Any = ray.remote
    reference = remote(num_cpus=0, max_retries=0)(_stay).remote(_path(tmp_path))
    await _is_held(tmp_path)
    ray.cancel(reference, force=True)
    await _is_free(tmp_path)


async def test_an_actor_that_is_killed_frees_its_devices(executor: Any, tmp_path: Path) -> None:
    import ray

    class Host:
        def stay(self, path: str) -> None:
            _stay(path)

    remote: Any = ray.remote
    host = remote(num_cpus=0)(Host).remote()
    host.stay.remote(_path(tmp_path))
    await _is_held(tmp_path)
    ray.kill(host)
    await _is_free(tmp_path)


async def test_a_program_that_is_killed_frees_its_devices(executor: Any, cluster: Any, tmp_path: Path) -> None:
    command = f"from executors.ray import test_inside; test_inside._stay({_path(tmp_path)!r}, {cluster.address!r})"
    program = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        await _is_held(tmp_path)
    finally:
        program.kill()
        program.wait()
    await _is_free(tmp_path)


def _path(folder: Path) -> str:
    return str(folder / "actor")


async def _is_held(folder: Path) -> None:
    import ray

    await later(Path(_path(folder)).exists, SLOW / 2)
    assert ray.available_resources().get("solo", 0.0) == 0.0


async def _is_free(folder: Path) -> None:
    import ray

    process = int(Path(_path(folder)).read_text())  # noqa: ASYNC240
    await later(lambda: not Path(f"/proc/{process}").exists())
    await later(lambda: ray.available_resources().get("solo") == 1.0)
    await later(lambda: not _keepers())


def _keepers() -> list[str]:
    from ray.util import list_named_actors

    return [each["name"] for each in list_named_actors(all_namespaces=True) if each["namespace"] == "director"]


def _stay(path: str, address: str = "auto") -> None:
    """Its job runs until its actor is ended."""
    import asyncio

    from director import Director
    from director.ray import RayExecutor
    from executors.ray import work

    async def main() -> None:
        async with Director(executor=RayExecutor(address=address, resources={"solo": 1})) as director:
            await director.run(work.stay, path)

    asyncio.run(main())
