"""Several application processes before one server, as the workers of a web server are.

`memory`: what a model takes that all of them use. `busy`: what the others notice of one whose event loop computes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import processes
from benchmarks.http.contender import environment
from benchmarks.server.calls import five_milliseconds, load
from benchmarks.server.contenders import FOLDER, NAME, folder_of_servers
from director import Director, Model
from director._format import quantile
from director.cli._bench.lost import PERIOD, SPARE, carry, compute, loss, nothing
from director.cli._bench.sheet import Effort, Sheet, bare_time, turns

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = "director, server"
SHARED = "a director in each worker, shared="
WORKERS = 4
SLOTS = 4
CALLERS = 2  # of the worker whose latencies are measured: their jobs come before those of the other one
SETTLING = 0.5  # seconds until all slots are busy
COPIES, P99, LOST = "replicas in memory", "p99 of the other one", "slot time lost"
BURDENS = {"idle loops": nothing, "one loop in Python": compute}


def opened(kind: str, devices: str) -> Director:
    """The Director of a worker."""
    if kind == SERVER:
        return Director(devices, server=NAME, server_linger=0.0, max_queue=None)
    return Director(devices, shared=NAME, max_queue=None)


# ---- in a worker, which says when it is ready, and goes on when a line comes


async def told(what: str) -> str:
    """Say what is done, and wait for a line."""
    print(what, flush=True)
    return await asyncio.to_thread(sys.stdin.readline)


async def hold(kind: str, size: int) -> None:
    """Load a model of that size."""
    async with opened(kind, "cpu:1") as director:
        await told("ready")
        model = Model(partial(load, size=size), name="model")
        await director.load(model)
        await told("loaded")


async def compete(kind: str, burden: str, window: float) -> list[tuple[int, int]]:
    """Keep all slots busy for a window, while the event loop has a burden; returns when jobs began and ended."""
    async with opened(kind, f"cpu:{SLOTS}") as director:
        began = float(await told("ready"))
        jobs = [director.submit(five_milliseconds) for _ in range(round(SPARE * SLOTS * (window + SETTLING) / 0.005))]
        await asyncio.sleep(began - time.monotonic())
        await carry(BURDENS[burden], window)
        for job in jobs:
            job.cancel()
        return [job.result() for job in jobs if job.done() and not job.cancelled()]


async def ask(kind: str, window: float) -> tuple[list[float], list[tuple[int, int]]]:
    """Ask in a closed loop for a window; returns latencies, and when jobs began and ended."""
    latencies: list[float] = []
    spans: list[tuple[int, int]] = []

    async def caller(director: Director) -> None:
        asked = began
        while asked < began + window:  # once at least
            asked = time.monotonic()
            spans.append(await director.run(five_milliseconds, priority=1))
            latencies.append(time.monotonic() - asked)

    async with opened(kind, f"cpu:{SLOTS}") as director:
        began = float(await told("ready"))
        await asyncio.sleep(began - time.monotonic())
        await asyncio.gather(*[caller(director) for _ in range(CALLERS)])
    return latencies, spans


# ---- outside


class Worker:
    """A worker as a process.

    Args:
        words: What it does.
    """

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "benchmarks.server.workers", *map(str, words)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def says(self, what: str) -> None:
        """Wait until it says that.

        Raises:
            RuntimeError: It has ended.
        """
        if (line := self._output.readline()) != f"{what}\n":
            raise RuntimeError(f"a worker says {line!r} instead of {what!r}")

    def tell(self, what: object) -> None:
        """Let it go on."""
        self._input.write(f"{what}\n")
        self._input.flush()

    def outcome(self) -> Any:
        """What it has found out."""
        return json.loads(self._output.readline())

    def leave(self) -> None:
        """End it."""
        self._input.close()
        self._output.close()
        self._process.wait()


@contextmanager
def working(*workers: tuple[object, ...]) -> Iterator[tuple[str, list[Worker]]]:
    """Workers that are ready, in a folder of their own, which is given too."""
    with folder_of_servers() as folder:
        started = [Worker(*words) for words in workers]
        try:
            for worker in started:
                worker.says("ready")
            yield folder, started
        finally:
            for worker in started:
                worker.leave()


def replicas_in_memory(kind: str, size: int, workers: int = WORKERS) -> float:
    """By how many times the size of a model the memory of all processes grows when each worker has loaded it."""
    with working(*[("hold", kind, size)] * workers) as (folder, started):
        before = _in_all(folder)
        for worker in started:
            worker.tell("load")
            worker.says("loaded")
        after = _in_all(folder)
        for worker in started:
            worker.tell("leave")
    return (after - before) / size


def _in_all(folder: str) -> int:
    return sum(map(processes.memory, processes.those_with(FOLDER, folder)))


def disturbed(kind: str, burden: str, window: float) -> tuple[float, float]:
    """The p99 of one worker in seconds, and the share of the slots' time that is lost, beside another with a burden."""
    bare = bare_time(five_milliseconds, 20)
    with working(("compete", kind, window, burden), ("ask", kind, window)) as (_, started):
        began = time.monotonic() + SETTLING
        for worker in started:
            worker.tell(began)
        others, (latencies, spans) = [worker.outcome() for worker in started]
    inside = round(began * 1e9), round((began + window) * 1e9)
    return quantile(sorted(latencies), 0.99), loss([*spans, *others], bare, SLOTS, inside).total


def memory(effort: Effort) -> Sheet:
    """A model that four workers use."""
    sheet = Sheet()
    for kind in turns((SHARED, SERVER), rounds=effort.pick(3, 1)):
        copies = replicas_in_memory(kind, effort.pick(1 << 30, 1 << 26))
        sheet.add(kind, COPIES, "of one", copies)
    return sheet


def busy(effort: Effort) -> Sheet:
    """Two workers, one of which computes on its event loop half of the time."""
    sheet = Sheet()
    window = PERIOD * effort.pick(75, 25)
    for burden, kind in turns([(burden, kind) for burden in BURDENS for kind in (SERVER, SHARED)], effort.pick(5, 3)):
        p99, lost = disturbed(kind, burden, window)
        sheet.add(kind, f"{P99}: {burden}", "ms", p99 * 1e3)
        sheet.add(kind, f"{LOST}: {burden}", "%", 100 * lost)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server.workers")
    parser.add_argument("what", choices=("hold", "compete", "ask"))
    parser.add_argument("kind", choices=(SERVER, SHARED))
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    match options.what, options.words:
        case "hold", [size]:
            asyncio.run(hold(options.kind, int(size)))
        case "compete", [window, burden]:
            print(json.dumps(asyncio.run(compete(options.kind, burden, float(window)))))
        case "ask", [window]:
            print(json.dumps(asyncio.run(ask(options.kind, float(window)))))


if __name__ == "__main__":
    main()
