"""What it costs when processes share slots: `python3 noxfile.py -s sharing`.

First one process alone, with and without `shared`: what asking for the slot adds to a job. Then 1, 2 and 4 processes on
two devices, each with more work than it can do: how much of the devices' time is used, and how evenly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from director import Device, Director

DEVICES = 2
CALLERS = 8  # of each process
READY = 3.0  # seconds until all processes are at it


def nothing(_device: Device) -> None:
    """A job that does nothing."""


async def round_trip(shared: str | None, jobs: int) -> float:
    """Seconds of a no-op job, each awaited before the next."""
    async with Director(f"simulated:{DEVICES}", shared=shared) as director:
        for _ in range(jobs // 10):
            await director.run(nothing)
        began = time.perf_counter()
        for _ in range(jobs):
            await director.run(nothing)
        return (time.perf_counter() - began) / jobs


async def burst(shared: str | None, jobs: int) -> float:
    """Seconds of a no-op job, all submitted first."""
    async with Director(f"simulated:{DEVICES}", shared=shared, max_queue=None) as director:
        began = time.perf_counter()
        await asyncio.gather(*[director.submit(nothing) for _ in range(jobs)])
        return (time.perf_counter() - began) / jobs


async def compete(began: float, seconds: float, job: float) -> int:
    """Jobs that this process gets done between two moments of the machine's monotonic clock."""
    count = 0

    async def keep_asking(director: Director) -> None:
        nonlocal count
        while (now := time.monotonic()) < began + seconds:
            await director.run(lambda _device: time.sleep(job))
            count += now >= began

    async with Director(f"simulated:{DEVICES}", shared="competitors") as director:
        await asyncio.gather(*[keep_asking(director) for _ in range(CALLERS)])
    return count


def together(processes: int, seconds: float, job: float) -> list[int]:
    """Jobs that each of some processes gets done."""
    began = time.monotonic() + READY
    command = [sys.executable, "-m", "benchmarks.sharing", "--compete", str(began), str(seconds), str(job)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return [int(process.communicate()[0]) for process in running]


def report(rounds: int, seconds: float, jobs: int) -> list[str]:
    """The lines of the report."""
    lines = ["| one process alone | plain | shared |", "|---|---|---|"]
    for name, measure in (("round trip, us", round_trip), ("burst, us", burst)):
        times = {
            shared: [1e6 * asyncio.run(measure(shared, jobs)) for _ in range(rounds)] for shared in (None, "alone")
        }
        lines.append(f"| {name} | {median(times[None]):.1f} | {median(times['alone']):.1f} |")
    lines += ["", "| processes | job | device time used | least share of a process |", "|---|---|---|---|"]
    for job in (0.001, 0.02):
        for processes in (1, 2, 4):
            counts = together(processes, seconds, job)
            used, least = sum(counts) * job / seconds / DEVICES, min(counts) * processes / max(1, sum(counts))
            lines.append(f"| {processes} | {1000 * job:g} ms | {used:.1%} | {least:.2f} of a fair one |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sharing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the first table (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row of the second (default 5)")
    parser.add_argument("--jobs", type=int, default=20_000, help="in a round of the first (default 20,000)")
    parser.add_argument("--compete", nargs=3, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compete:
        print(asyncio.run(compete(*options.compete)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DIRECTOR_RUNTIME_DIR"] = str(Path(folder, "locks"))
        print("\n".join(report(options.rounds, options.seconds, options.jobs)))


if __name__ == "__main__":
    main()
