"""A cluster of two nodes with two logical GPUs each, for all tests here; they need the extra `ray`.

Bounded for a small machine: little shared memory, no dashboard, one core a node. Ray leaves files and sockets to the
garbage collector and warns of its own future; here, and only here, these warnings are no errors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Director

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

try:
    import ray
except ImportError:
    collect_ignore_glob = ["test_*.py"]  # the session `ray` of nox has it

NODE = {"num_cpus": 1, "num_gpus": 2, "object_store_memory": 150 * 2**20}
SLOW = 120  # seconds: starting processes takes its time on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.timeout(SLOW))
            for ignored in ("ResourceWarning", "FutureWarning", "pytest.PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{ignored}"))


@pytest.fixture(scope="session", autouse=True)
def program_without_head(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str] | None]:
    """Begun before all else, for it mostly waits: for half a minute."""
    wanted = [item for item in request.session.items if "program_without_head" in getattr(item, "fixturenames", ())]
    if not any(item.path.name == "test_head.py" for item in wanted):
        yield None
        return
    from executors.ray.test_head import PROGRAM

    path = tmp_path_factory.mktemp("head") / "program.py"
    path.write_text(PROGRAM)
    here = Path(__file__).parents[2]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    pipe = subprocess.PIPE
    program = subprocess.Popen([sys.executable, str(path)], stdout=pipe, stderr=pipe, text=True, env=surroundings)
    yield program
    if program.poll() is None:
        program.kill()
        program.communicate()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes."""
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    before, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", ""), os.pathsep.join(paths)  # of the actors
    head = {**NODE, "include_dashboard": False, "resources": {"solo": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        os.environ["PYTHONPATH"] = before
        cluster.shutdown()


@pytest.fixture(scope="session")
def _connection(cluster: Any) -> Iterator[None]:
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def executor(_connection: None) -> Any:
    """For a Director in a process that is connected already."""
    from director.ray import RayExecutor

    return RayExecutor(start_timeout=SLOW / 2)


@pytest.fixture
def solo(executor: Any) -> Any:
    """For a Director of one device."""
    return replace(executor, resources={"solo": 1})


@pytest.fixture
async def single(solo: Any) -> AsyncIterator[Director]:
    """One device: its actor is there sooner than four."""
    async with Director(executor=solo) as director:
        yield director


@pytest.fixture
async def director(executor: Any) -> AsyncIterator[Director]:
    """Four devices of two nodes."""
    async with Director(executor=executor) as director:
        yield director
