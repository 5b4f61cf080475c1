"""SIGTERM to a real server: what runs is finished, the rest refused, within a time; and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from executors.process.conftest import LIMIT, surroundings
from executors.process.leaks import is_alive, shared_names, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

pytestmark = pytest.mark.slow

SERVER = """
    import gc, json, os, signal, sys, threading, warnings
    from pathlib import Path

    import numpy as np  # it has threads of its own
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from director import Director, ProcessExecutor
    from director.asgi import lifespan
    from executors.process import calls

    executor = ProcessExecutor(grace=0.2) if sys.argv[1] == "process" else "thread"
    director = Director("cpu", executor=executor)

    async def work(request):
        answer = await director.run(calls.held, request.query_params["until"], request.query_params["answer"])
        return PlainTextResponse(answer)

    async def array(request):
        return PlainTextResponse(str((await director.run(calls.echo, np.ones(3_000_000, np.uint8))).sum()))

    async def stuck(request):
        await director.run(calls.stuck)

    async def ids(request):
        return PlainTextResponse(str(await director.run(calls.process_id)))

    async def load(request):
        stats = director.stats()
        return PlainTextResponse(f"{stats.running} runs, {stats.queued} waits")

    routes = [Route(f"/{endpoint.__name__}", endpoint) for endpoint in (work, array, stuck, ids, load)]
    app = Starlette(routes=routes, lifespan=lifespan(director, close_timeout=1))

    def inventory():
        gc.collect()
        files = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                files[number] = os.readlink(f"/proc/self/fd/{number}")
            except FileNotFoundError:
                pass  # the listing's own
        tasks = Path("/proc/self/task").iterdir()
        return {
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "system threads": len(os.listdir("/proc/self/task")),
            "children": sorted(child for task in tasks for child in (task / "children").read_text().split()),
            "descriptors": sorted(files.values()),
            "mapped": sum("/memfd:director" in line for line in Path("/proc/self/maps").read_text().splitlines()),
        }

    if __name__ == "__main__":
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it is through
        config = uvicorn.Config(app, port=0, loop="asyncio", timeout_graceful_shutdown=int(sys.argv[2]))
        before = inventory()
        uvicorn.Server(config).run()
        print(json.dumps([before, inventory()]), flush=True)
"""


class Server:
    """A uvicorn of its own.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self._said.append(line)
            if "running on" in line:
                self.port = int(line.split("127.0.0.1:")[1].split()[0])
                return
        raise AssertionError("".join(self._said))

    def ask(self, path: str) -> socket.socket:
        """Send a request; `answer` reads what comes."""
        connection = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return connection

    def refuses(self) -> bool:
        """Whether it listens no more."""
        try:
            socket.create_connection(("127.0.0.1", self.port), LIMIT).close()
        except OSError:
            return True
        return False

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Wait for its end; what it held before and after, and everything that it said."""
        out, said = self.process.communicate(timeout=LIMIT)
        assert self.process.returncode == 0, "".join(self._said) + said
        before, after = json.loads(out.splitlines()[-1])  # after the log of accesses
        return before, after, "".join(self._said) + said


def answer(connection: socket.socket) -> tuple[int, str]:
    """The status and the content of an answer."""
    with closing(connection):
        text = b""
        while chunk := connection.recv(1 << 16):
            text += chunk
    head, _, content = text.decode().partition("\r\n\r\n")
    return int(head.split()[1]), content


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[subprocess.Popen[str]] = []

    def start(executor: str, patience: int) -> Server:
        path = tmp_path / "server.py"
        path.write_text(textwrap.dedent(SERVER))
        # Warnings of others' packages are not ours to judge; those that say that something was left open are.
        command = [sys.executable, "-W", "error::ResourceWarning", "-X", "dev", str(path), executor, str(patience)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=surroundings(),
            start_new_session=True,
        )
        started.append(process)
        return Server(process)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def session_of(leader: int) -> set[int]:
    """Processes that were started by a program, and by these."""
    found = set()
    for process in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with suppress(ProcessLookupError):
            if os.getsid(process) == leader and is_alive(process):
                found.add(process)
    return found


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_what_runs_is_finished_and_nothing_is_left(serve: Callable[..., Server], executor: str, tmp_path: Path) -> None:
    names = shared_names()
    server = serve(executor, 20)
    assert answer(server.ask("/array")) == (200, "3000000")
    first = server.ask(f"/work?until={tmp_path / 'go'}&answer=first")
    second = server.ask(f"/work?until={tmp_path / 'go'}&answer=second")  # waits for the one slot
    wait_until(lambda: answer(server.ask("/load")) == (200, "1 runs, 1 waits"))
    server.terminate()
    wait_until(server.refuses)
    (tmp_path / "go").touch()
    assert answer(first) == (200, "first")
    assert answer(second) == (200, "second")
    before, after, said = server.end()
    assert after == before, "threads, children, descriptors and mappings"
    assert "Warning" not in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    wait_until(lambda: shared_names() <= names)
    assert session_of(server.process.pid) == set()


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_what_does_not_end_is_given_up_within_a_time(serve: Callable[..., Server], executor: str) -> None:
    names = shared_names()
    server = serve(executor, 1)
    status, child = answer(server.ask("/ids"))
    assert status == 200
    hanging = server.ask("/stuck")
    waiting = server.ask("/ids")
    wait_until(lambda: answer(server.ask("/load")) == (200, "1 runs, 1 waits"))
    began = time.monotonic()
    server.terminate()
    before, after, said = server.end()
    assert time.monotonic() - began < 15
    hanging.close()
    waiting.close()
    if executor == "process":
        assert not is_alive(int(child))
        assert after == before, "threads, children, descriptors and mappings"
    else:  # a thread can't be ended: it is said, and the process ends all the same
        assert set(after["threads"]) - set(before["threads"]) == {"director:cpu:0/0"}
        assert "abandoned" in said
    assert "ResourceWarning" not in said
    wait_until(lambda: shared_names() <= names)
    assert session_of(server.process.pid) == set()
