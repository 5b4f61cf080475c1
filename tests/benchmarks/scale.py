"""How far one Director reaches: ``python -m benchmarks.scale``.

First the decision alone, by the number of slots up to ten thousand: a job arrives, and a slot takes it. Then slots that
sleep.

Each slot has its own thread, as behind every executor, and each job sleeps for a while, as a thread does that waits for
an actor. What is told is the share of slot time in which a job ran, when all slots have work: it falls where the
Director can't hand out jobs as fast as they end. What Ray itself can carry is another matter: `benchmarks.cluster`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from typing import Any

from director import Director
from director._jobs.job import ScheduledJob
from director._jobs.options import Options
from director._jobs.state import JobState
from director._scheduler.policy import SchedulingPolicy
from director._scheduler.scheduler import Scheduler
from director._scheduler.slots import make_device_slots
from director.testing import simulated_devices


def rest(_device: Any, seconds: float) -> None:
    """A job."""
    time.sleep(seconds)


async def measure(slots: int, seconds: float, rounds: int) -> dict[str, Any]:
    """So many slots, each with `rounds` jobs of so many seconds."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    async with Director("simulated:1", slots=slots, max_queue=None) as director:
        await asyncio.gather(*[director.submit(rest, 0.01) for _ in range(2 * slots)])  # the threads are there
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*[director.submit(rest, seconds) for _ in range(rounds * slots)])
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF)
    jobs = rounds * slots
    return {
        "slots": slots,
        "job_seconds": seconds,
        "jobs_a_second": round(jobs / wall),
        "busy": round(jobs * seconds / wall / slots, 3),
        "cpu_us_a_job": round(cpu / jobs * 1e6, 1),
        "kib_a_slot": round(max(0, after.ru_maxrss - before.ru_maxrss) / slots, 1),
    }


async def decide(slots: int, jobs: int) -> dict[str, Any]:
    """The decision alone, without threads: a job arrives, a slot ends its last one and takes it."""
    devices = tuple(simulated_devices(slots))
    options = Options()
    nothing: Any = lambda *_: None  # noqa: E731
    dispatch = Scheduler(
        make_device_slots(devices, [1] * slots),
        SchedulingPolicy(),
        lambda _: frozenset(),
        nothing,
        nothing,
        nothing,
        nothing,
    )
    dispatch._waking._time = dispatch._service._time = time.monotonic
    loop = asyncio.get_running_loop()

    def arrive(number: int) -> None:
        job: ScheduledJob[Any] = ScheduledJob(loop=loop)
        job.id, job.fn, job.payload, job.options = number, rest, (), options
        job.extras = job.context = job.started_at = job.finished_at = job.reported = None
        job.state, job.submitted_at = JobState.QUEUED, 0.0
        dispatch.admit(job, wait_for_room=True)

    for number in range(slots):
        arrive(number)
    hired: list[Any] = []
    while batch := dispatch.pick_slots_to_start(16):
        hired += batch
        for slot in batch:
            dispatch.next_work(slot)
    began = time.process_time()
    for number in range(jobs):
        arrive(slots + number)
        dispatch.next_work(hired[number % len(hired)])
    return {"slots": slots, "decision_us": round((time.process_time() - began) / jobs * 1e6, 2)}


def main() -> None:
    """Measure one size after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="*", default=[10, 100, 1_000])
    parser.add_argument("--seconds", type=float, nargs="*", default=[1.0, 0.1])
    parser.add_argument("--rounds", type=int, default=5, help="jobs for each slot")
    args = parser.parse_args()
    for slots in (10, 100, 1_000, 10_000):
        print(json.dumps(asyncio.run(decide(slots, 20_000))), flush=True)
    for seconds in args.seconds:
        for slots in args.slots:
            print(json.dumps(asyncio.run(measure(slots, seconds, args.rounds))), flush=True)


if __name__ == "__main__":
    main()
