"""Servers to compare: how each is started, when it is ready, what it costs at rest, and how it is ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.http.sheet import SERVED
from benchmarks.processes import processor_ticks, those_with

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[2]
READY = 60.0  # seconds until a server must answer
PORT = "BENCHMARK_PORT"  # in the environment of all processes of a server, its own ones too


@dataclass(frozen=True)
class Contender:
    """A server with its settings.

    Args:
        name: For the table.
        needs: The package that it needs.
        command: Module and arguments; ``{port}`` and ``{workers}`` are filled in.
    """

    name: str
    needs: str
    command: tuple[str, ...]


CONTENDERS = (
    Contender("director before FastAPI's router", "fastapi", ("serve_director", "{port}", "{workers}", "early")),
    Contender("director, add_route", "fastapi", ("serve_director", "{port}", "{workers}", "route")),
    Contender("director, validating", "fastapi", ("serve_director", "{port}", "{workers}", "endpoint")),
    Contender(SERVED, "fastapi", ("serve_director", "{port}", "{workers}", "served")),
    Contender("mosec, wait 5 ms", "mosec", ("serve_mosec", "--port", "{port}", "--timeout", "60000")),
    Contender("LitServe, timeout 5 ms", "litserve", ("serve_litserve", "{port}", "{workers}", "0.005", "slow")),
    Contender("LitServe, fast queue, 5 ms", "litserve", ("serve_litserve", "{port}", "{workers}", "0.005", "fast")),
)


class Site:
    """A running server."""

    def __init__(self, port: int) -> None:
        self._port = port

    def order(self, **order: Any) -> Any:
        """Have a client do something and return the outcome, with the seconds of cores that the server has used."""
        text = json.dumps({"port": self._port, **order})
        command = [sys.executable, "-m", "benchmarks.http.client"]
        before = self._ticks()
        done = subprocess.run(command, input=text, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout) | {"used": (self._ticks() - before) / os.sysconf("SC_CLK_TCK")}

    def share_at_rest(self, seconds: float) -> float:
        """Share of one core that it uses while nobody asks for anything."""
        before = self._ticks()
        time.sleep(seconds)
        return (self._ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds

    def _ticks(self) -> int:
        """Of all its processes, those that ended aside."""
        return sum(map(processor_ticks, those_with(PORT, str(self._port))))


@contextmanager
def running(contender: Contender, workers: int) -> Iterator[Site]:
    """Start a server, in a group of processes of its own, and end them all."""
    port = free_port()
    module, *arguments = (part.format(port=port, workers=workers) for part in contender.command)
    command = [sys.executable, "-m", f"benchmarks.http.{module}", *arguments]
    env = environment() | {"WORKERS": str(workers), PORT: str(port)}
    with subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        try:
            site = Site(port)
            wait_until_ready(process, port, contender)
            site.order(clients=64, seconds=1.0)  # warm
            yield site
        finally:
            end(process)


def wait_until_ready(process: subprocess.Popen[bytes], port: int, contender: Contender) -> None:
    """Until it answers a request: some listen long before."""
    from benchmarks.http.client import REQUEST

    deadline = time.monotonic() + READY
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(REQUEST)
                if b" 200 " in connection.recv(4096)[:16]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{contender.name} did not start; its last words are above")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask, and then insist, for the children too."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue


def environment() -> dict[str, str]:
    """Where modules are found: this one, and the package itself."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return {**os.environ, "PYTHONPATH": path}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
