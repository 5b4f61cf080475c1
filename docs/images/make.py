"""Makes the pictures of the how-to pages: runs a small service on simulated devices and shows what it recorded.

    python docs/images/make.py

Needs `chromium` (Debian: apt-get install chromium). What is recorded is real, so no two pictures are quite the same.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from director import Director, Model
from director.timeline import Timeline

HERE = Path(__file__).parent
DARK = ("--blink-settings=preferredColorScheme=0",)


def load(device):
    time.sleep(0.03)
    return device


def detect(device, seconds):
    device.work(seconds)


def embed(device, seconds):
    device.work(seconds)


def read_text(device, seconds):
    device.work(seconds)
    if seconds > 0.012:
        raise ValueError("no text found on page 17")


async def serve(timeline):
    """Two seconds of a service: requests at random, bursts now and then, and a loop that is blocked twice."""
    chance = random.Random(3)
    detector = Model(load, name="detector")
    async with Director("simulated:4", hooks=[timeline], max_queue=None) as director:
        jobs = []
        for number in range(420):
            await asyncio.sleep(chance.expovariate(1) * 0.004)
            function = chance.choices([detect, embed, read_text], [6, 3, 1])[0]
            seconds = min(0.2, chance.lognormvariate(-4.9, 1.1))
            jobs.append(director.submit(function, seconds, model=detector if function is detect else None))
            if number % 60 == 59:
                jobs[-1].cancel()
                jobs += [director.submit(embed, 0.004) for _ in range(25)]
            if number in (200, 330):
                time.sleep(0.08)  # noqa: ASYNC251 - what this is about: somebody blocks the loop
        await asyncio.wait(jobs)
        [job.exception() for job in jobs if not job.cancelled()]  # looked at


def take(chromium, page, picture, size, place="", options=()):
    """Photograph a page as a browser shows it."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
        "--virtual-time-budget=3000", f"--window-size={size}", f"--screenshot={HERE / picture}",
        *options, page.as_uri() + place,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    print(HERE / picture)


def main():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium is missing: apt-get install chromium")
    timeline = Timeline(name="a small service")
    asyncio.run(serve(timeline))
    longest = max((job for job in timeline.records() if job.started), key=lambda job: job.started - job.submitted)
    since = timeline.story().since
    around = [round(1e6 * (moment - since)) for moment in (longest.submitted - 0.08, longest.ended + 0.12)]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        timeline.report(page)
        take(chromium, page, "timeline.png", "1240,912")
        take(chromium, page, "timeline-zoom.png", "1240,640", f"#{around[0]}-{around[1]},{longest.job}", DARK)


main()
