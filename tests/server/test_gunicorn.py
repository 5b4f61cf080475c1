"""Real gunicorn, which recycles its workers: the server process stays, with its models."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.conftest import PATIENCE, is_alive, until
from server.web import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[[int], Site]

pytest.importorskip("gunicorn", reason="needs gunicorn")
pytest.importorskip("uvicorn_worker", reason="needs uvicorn-worker")
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(180)]
LINGER = 60.0  # seconds: the machine may be busy

APP = f"""
import os
from fastapi import FastAPI
from director import Director, Model
from director.fastapi import lifespan
from harness import served

director = Director("simulated:1", server="web", server_linger={LINGER})
model = Model(served.load)
app = FastAPI(lifespan=lifespan(director))

@app.get("/who")
async def who():
    return {{"worker": os.getpid(), **await director.run(served.replica, model=model)}}
"""


@pytest.fixture
def start(runtime_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts gunicorn with so many workers, each of which is replaced after five requests."""
    (tmp_path / "web.py").write_text(APP)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"}
    masters: list[subprocess.Popen[bytes]] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.set_inheritable(True)

        def start(workers: int) -> Site:
            command = [sys.executable, "-m", "gunicorn", "web:app", "--worker-class", "uvicorn_worker.UvicornWorker"]
            command += ["--workers", str(workers), "--max-requests", "5", "--log-level", "warning"]
            command += ["--bind", f"fd://{listener.fileno()}", "--timeout", "120"]
            masters.append(subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], cwd=tmp_path))
            return Site(listener.getsockname()[1], masters[-1].pid)

        yield start
        for master in masters:
            master.terminate()
            master.wait(PATIENCE)
    assert runtime_dir.exists()


@pytest.mark.parametrize("workers", [1, 2])
async def test_workers_are_recycled_and_the_server_stays_with_its_model(start: Start, workers: int) -> None:
    site = start(workers)
    seen: dict[int, Any] = {}

    async with asyncio.timeout(4 * PATIENCE):
        while len(seen) < workers + 3:
            with suppress(OSError, ValueError):  # of a worker that ends
                status, told = await site.get("/who")
                assert status == 200
                seen[told.pop("worker")] = (told["process"], told["number"])

    [(server, _)] = set(seen.values())  # one process, and one replica, however many workers there were
    assert server not in seen
    os.kill(site.master, signal.SIGTERM)
    await until(lambda: not is_alive(site.master))
    assert is_alive(server)  # it waits for new workers
    os.kill(server, signal.SIGTERM)
    await until(lambda: not is_alive(server))
