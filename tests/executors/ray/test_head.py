"""A cluster whose head goes away: clear errors within seconds, and the program lives on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from executors.ray.conftest import SLOW

if TYPE_CHECKING:
    import subprocess

PROGRAM = """
import asyncio
import json
import time

from ray.cluster_utils import Cluster

from executors.ray import work
from executors.ray.conftest import NODE
from director import Director
from director.ray import RayExecutor


async def main():
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_gpus": 1, "include_dashboard": False})
    director = Director(executor=RayExecutor(address=cluster.address))
    await director.start()
    await director.run(work.echo, 1)
    jobs = [director.submit(work.sleep, 300.0), director.submit(work.sleep, 300.0)]
    await asyncio.sleep(0.5)
    began = time.monotonic()
    cluster.head_node.kill_gcs_server(check_alive=False)
    outcomes = [type(each).__name__ for each in await asyncio.gather(*jobs, return_exceptions=True)]
    seconds = time.monotonic() - began
    try:
        await director.run(work.echo, 1)
    except Exception as error:
        outcomes.append(type(error).__name__)
    await director.close(1)
    cluster.shutdown()
    print(json.dumps([outcomes, seconds]))


asyncio.run(main())
"""


@pytest.mark.timeout(2 * SLOW)
def test_the_head_goes_away(program_without_head: subprocess.Popen[str]) -> None:
    out, err = program_without_head.communicate(timeout=2 * SLOW - 10)
    assert program_without_head.returncode == 0, err
    outcomes, seconds = json.loads(out.splitlines()[-1])
    assert outcomes == ["WorkerDied", "DeviceLost", "DeviceLost"]
    assert seconds < 30
    assert "the head of the Ray cluster does not answer" in err
