"""The page about a run can be used by everybody, in any window, whatever jobs are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dashboard.serving import chromium

from director.timeline._page import page
from director.timeline._story import Load
from timeline.stories import DEVICES, never_ran, ran, story

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

NAMES = ("detect", "x" * 500, "a.very.long.path." * 20)
STORY = story(
    [ran(n, n % 2, 0, n, n + 1, name=NAMES[n % 3]) for n in range(1, 20)]
    + [ran(20, 0, 0, 20, 21, state="failed", error=f"ValueError: {'no' * 90}", name=NAMES[1]), never_ran(21, 1, 2)],
    until=22,
    name=NAMES[1],
    loads=(Load(NAMES[1], DEVICES[0], 0, 1, None),),
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing_and_nothing_stands_out(scheme: str, width: int, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="needs axe-playwright-python").Axe()
    path, asked = tmp_path / "page.html", []
    path.write_text(page(STORY))
    async with chromium() as browser:
        seen = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        seen.on("request", lambda request: asked.append(request.url))
        seen.on("console", lambda message: asked.append(message.text))
        seen.on("pageerror", lambda error: asked.append(str(error)))
        await seen.goto(path.as_uri())
        await seen.wait_for_selector("#legend li")
        assert await seen.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = (await axe.run(seen)).response["violations"]
    assert [(each["id"], node["html"]) for each in found for node in each["nodes"]] == []
    assert asked == [path.as_uri()], "it asks for nothing but itself"
