"""A busy app without GPUs: simulated devices, three models, some trouble. Made for looking at.

    $ python docs/examples/busy.py --devices 8        # and in another terminal:
    $ director top

With uvicorn installed (`pip install 'gpu-director[dashboard]'`), `--web 8265` serves the web page as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import threading

from director import Director, JobTimeout, Model, QueueFull, check_cancelled, report
from director.dashboard import Dashboard


def load(device):
    device.work(0.3)
    return device


detector, captioner, embedder = (Model(load, name=name) for name in ("detector", "captioner", "embedder"))


def detect(device, seconds, picture):
    device.work(seconds)
    if picture % 97 == 0:
        raise ValueError(f"picture {picture}: not a JPEG file: starts with b'\\x00\\x00'")
    return picture


def caption(device, seconds):
    for step in range(20):
        device.work(seconds / 20)
        report((step + 1) / 20)
        check_cancelled()


def embed(device, batch):
    """What waits is taken together, which takes hardly longer than one."""
    device.work(max(batch))
    return batch


def stuck(device, freed):
    freed.wait()


async def arrive(rate: float, call, dice: random.Random) -> None:
    """Make a call at random moments, `rate` times a second on average."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += dice.expovariate(rate)
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        elif dice.random() < 0.01:
            await asyncio.sleep(0)  # behind its time: let others have a turn
        with contextlib.suppress(QueueFull):
            call().add_done_callback(look_at)


def look_at(job) -> None:
    """Retrieve the error of a job that no task awaits; otherwise asyncio would log it."""
    if not job.cancelled():
        job.exception()


async def keep_busy(director: Director, load: float, jobs: float, seed: int) -> None:
    """Bring work for a share of all slots' time, `jobs` times as many and as short."""
    dice = random.Random(seed)
    slots = sum(each.slots for each in director.stats().devices)
    unit = load * slots * jobs
    pictures = iter(range(10**12))

    embeddings = director.function(embed, model=embedder, priority=1, max_batch_size=16)

    def some(mean: float) -> float:
        return dice.lognormvariate(-0.5, 1.0) * mean / jobs

    await asyncio.gather(
        arrive(unit * 5.0, lambda: director.submit(detect, some(0.1), next(pictures), model=detector), dice),
        arrive(unit * 0.25, lambda: director.submit(caption, some(1.2), model=captioner, timeout=4), dice),
        arrive(unit * 10.0, lambda: embeddings.submit(some(0.02)), dice),
    )


async def get_stuck(director: Director) -> None:
    """From time to time a call outlives its timeout."""
    while True:
        freed = threading.Event()
        job = director.submit(stuck, freed, timeout=1.0)
        with contextlib.suppress(JobTimeout):
            await job
        await asyncio.sleep(3)
        freed.set()
        await asyncio.sleep(8)


async def main(options: argparse.Namespace) -> None:
    director = Director(f"simulated:{options.devices}", slots=options.slots, name="vision", max_queue=2000)
    dashboard = Dashboard(director)
    async with dashboard.serve() as path, director, asyncio.TaskGroup() as group:
        print(f"process {path.stem}: look at it with `director top`", flush=True)
        if options.web is not None:
            group.create_task(serve_page(dashboard, options.web))
        group.create_task(keep_busy(director, options.load, options.jobs, options.seed))
        group.create_task(get_stuck(director))


async def serve_page(dashboard: Dashboard, port: int) -> None:
    import uvicorn

    config = uvicorn.Config(dashboard, port=port, log_level="warning", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve()
    raise KeyboardInterrupt  # it has taken the signal for itself


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--load", type=float, default=0.85, help="share of the slots' time (0.85)")
    parser.add_argument("--jobs", type=float, default=1.0, help="so many times as many jobs, each as much shorter (1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--web", type=int, metavar="PORT", help="serve the page on this port of this machine")
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parse()))
