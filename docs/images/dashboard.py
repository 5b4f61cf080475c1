"""Makes the pictures of the dashboard and of `director top`: runs the busy example for a minute and looks at it.

    python docs/images/dashboard.py

Needs uvicorn, rich, playwright and `chromium` (Debian: apt-get install chromium). What is shown is real, so no two
pictures are quite the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

from playwright.async_api import async_playwright
from rich.console import Console

from director import Director
from director.cli._top.known import DashboardState
from director.cli._top.screen import Screen
from director.dashboard import Dashboard

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))
import busy  # noqa: E402

PORT = 8299
MINUTE = 70  # seconds, until the tracks are full


async def main(options: argparse.Namespace) -> None:
    """Run the example; look when the minute is over."""
    director = Director("simulated:8", name="vision", max_queue=2000)
    dashboard = Dashboard(director)
    async with director, asyncio.TaskGroup() as group:
        work = [
            group.create_task(busy.keep_busy(director, load=0.85, jobs=1.0, seed=1)),
            group.create_task(busy.get_stuck(director)),
            group.create_task(busy.serve_page(dashboard, PORT)),
        ]
        await asyncio.sleep(options.seconds)
        await draw_top(dashboard)
        await photograph(f"http://127.0.0.1:{PORT}/")
        for task in work:
            task.cancel()


async def draw_top(dashboard: Dashboard) -> None:
    """The screen of `director top`, as a terminal of 100 columns shows it."""
    known = DashboardState()
    async with contextlib.aclosing(dashboard._source.frames()) as frames:
        known.apply(json.loads((await anext(frames))[1]))
    console = Console(
        record=True, width=100, height=26, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Screen(console).picture(known))
    drawn = console.export_svg(title="director top")
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.S)  # nothing is fetched from elsewhere
    (HERE / "top.svg").write_text(drawn.replace("Fira Code, monospace", "DejaVu Sans Mono, Menlo, Consolas, monospace"))
    print(HERE / "top.svg")


async def photograph(address: str) -> None:
    """The page in both colours, by the system's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium is missing: apt-get install chromium")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        for name, scheme in (("dashboard.png", "light"), ("dashboard-dark.png", "dark")):
            page = await browser.new_page(viewport={"width": 1280, "height": 1240}, color_scheme=scheme)
            await page.goto(address)
            await page.wait_for_timeout(3000)
            await page.screenshot(path=HERE / name)
            print(HERE / name)
        await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=MINUTE, help=f"before the pictures are taken ({MINUTE})")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(parser.parse_args()))
