"""Real uvicorn with two workers before one server process: models once, one queue, and 503 for all workers together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.conftest import PATIENCE, Holder, is_alive, until
from server.web import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.programs, pytest.mark.slow]

APP = """
import os
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app
from director import Director, Model
from director.fastapi import install, lifespan
from director.prometheus import Breakdown, DirectorCollector
from harness import served

breakdown, registry = Breakdown(), CollectorRegistry()
director = Director(
    "simulated:1", server="web", server_linger=0.0, max_queue=1, when_full="refuse", hooks=[breakdown]
)
DirectorCollector(director, breakdown=breakdown, registry=registry)
model = Model(served.load)
app = FastAPI(lifespan=lifespan(director, load=[model]))
install(app, director, models=[model], metrics=make_asgi_app(registry))

@app.get("/who")
async def who():
    return {"worker": os.getpid(), **await director.run(served.replica, model=model)}

@app.get("/queued")
async def queued():
    return director.stats().queued

@app.get("/hold")
async def hold(path: str):
    return await director.run(served.hold, path)
"""


@pytest.fixture
def site(runtime_dir: Path, tmp_path: Path) -> Iterator[Site]:
    """Two workers of uvicorn."""
    (tmp_path / "web.py").write_text(APP)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"}
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "uvicorn", "web:app", "--workers", "2", "--log-level", "warning"]
        command += [
            "--timeout-worker-healthcheck",
            "60",
        ]  # seconds; a worker that starts on a busy machine is no dead one
        command += ["--fd", str(listener.fileno())]
        with subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()]) as master:
            try:
                yield Site(listener.getsockname()[1], master.pid)
            finally:
                master.terminate()
                master.wait(PATIENCE)
    assert runtime_dir.exists()


async def test_both_workers_use_one_replica_in_one_process(site: Site) -> None:
    told = await site.workers(2)

    assert len({facts["number"] for facts in told.values()}) == 1
    [server] = {facts["process"] for facts in told.values()}
    assert server not in told
    await site.answers("/readyz", 200)

    os.kill(site.master, signal.SIGTERM)
    await until(lambda: not is_alive(server))


async def test_a_scrape_of_either_worker_has_the_jobs_of_both(site: Site) -> None:
    """Several scrapes of one port, as Prometheus makes them: the sum over its series is what both have done."""
    workers = await site.workers(2)
    series: dict[str, float] = {}

    async def scrape() -> bool:
        _, text = await site.read("/metrics")
        lines = [line for line in text.decode().splitlines() if line.startswith("director_") and "_created" not in line]
        series.update((name, float(value)) for name, _, value in (line.rpartition(" ") for line in lines))
        return all(any(f'worker="{worker}"' in name for name in series) for worker in workers)

    def total(name: str) -> float:
        return sum(value for each, value in series.items() if each.startswith(name) and "succeeded" in each)

    async with asyncio.timeout(PATIENCE):
        while not await scrape() or total("director_jobs_total") != total("director_function_jobs_total"):
            pass
    assert [each for each in series if "jobs_total" in each and "device" in each and "worker" in each] == []
    assert len([each for each in series if each.startswith("director_device_slots")]) == 1


async def test_a_worker_that_is_killed_is_replaced_and_finds_the_model(site: Site) -> None:
    before = await site.workers(2)

    os.kill(next(iter(before)), signal.SIGKILL)
    await until(lambda: not is_alive(next(iter(before))))
    after: dict[int, Any] = {}
    while not set(after) - set(before):
        after |= await site.workers(1)

    assert {facts["number"] for facts in after.values()} == {facts["number"] for facts in before.values()}


async def test_overload_is_refused_by_both_workers_together(site: Site, tmp_path: Path) -> None:
    await site.workers(2)
    holder, second = Holder(tmp_path / "pipe"), Holder(tmp_path / "pipe2")
    running = asyncio.ensure_future(site.get(f"/hold?path={holder.path}"))
    await holder.begun()
    waiting = asyncio.ensure_future(site.get(f"/hold?path={second.path}"))
    await site.answers("/queued", 200, 1)

    statuses: list[int] = []
    while statuses[-6:] != [503] * 6:  # whichever worker answers
        statuses.append((await site.get("/who"))[0])
        assert len(statuses) < 200

    for each in (holder, second):
        each.let_go()
    assert [(await each)[0] for each in (running, waiting)] == [200, 200]
