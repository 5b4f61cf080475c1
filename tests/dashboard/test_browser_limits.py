"""The page when things are not as usual: hostile and endless names, a narrow window, batches, one job a minute."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dashboard.serving import opened
from director import Director, report
from director.dashboard import Dashboard
from director.dashboard._site import Site

if TYPE_CHECKING:
    from harness.gates import Gate

pytestmark = pytest.mark.slow

HTML = "<img src=x onerror=alert(1)>\"'&amp;</script><script>alert(2)</script>"


def fail(device: object, text: str) -> None:
    raise ValueError(text)


async def too_wide(page: Any) -> list[str]:
    """What stands out of the window, so that the whole page could be pushed sideways."""
    found: list[str] = await page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('body *')].filter(it => it.getBoundingClientRect().right > innerWidth)
            .map(it => it.outerHTML.slice(0, 80))"""
    )
    return found


@pytest.mark.parametrize("width", [390, 800, 1280])
@pytest.mark.parametrize("name", [HTML, "x" * 500, "a.very.long.path." * 20], ids=["html", "x", "path"])
async def test_names_and_errors_are_text_and_have_their_place(name: str, width: int, gate: Gate) -> None:
    director = Director("simulated:2", name=name)

    def step(device: object) -> None:
        report(name)
        gate(device)

    async with opened(director, width=width) as page:
        with contextlib.suppress(ValueError):
            await director.run(fail, name, name=name)
        jobs = [director.submit(step, name=name) for _ in range(4)]
        await gate.begun(2)
        await page.locator("#jobs tbody tr").nth(1).wait_for()
        await page.locator("#waiting tbody tr").wait_for()
        assert await too_wide(page) == []
        for kind in ("#failures", "#jobs", ".devices"):
            await page.locator(f"{kind} tbody button").first.click()
            await page.locator("#detail dd").first.wait_for()
            assert await too_wide(page) == []
            assert await page.locator("#detail").evaluate("it => it.scrollWidth <= it.clientWidth")
            await page.keyboard.press("Escape")
        assert await page.locator("img:not(header img)").count() == 0
        gate.open()
        await asyncio.gather(*jobs)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing(scheme: str, width: int) -> None:
    """Names, roles, contrast, order of headings, what a keyboard can reach: some ninety rules of WCAG, by axe-core."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="needs axe-playwright-python").Axe()
    director, freed = Director("simulated:2"), threading.Event()

    @director.function(max_batch_size=4)
    def embed(device: object, items: list[int]) -> list[int]:
        return items

    async with opened(director, width=width, color_scheme=scheme, bypass_csp=True) as page:
        with contextlib.suppress(ValueError):
            await director.run(fail, "no good", name="decode")
        await asyncio.gather(*[embed(number) for number in range(40)])
        jobs = [director.submit(lambda device: freed.wait(50), name="detect") for _ in range(4)]
        await page.locator("#waiting tbody tr").wait_for()
        await page.locator("#batches").wait_for()
        await page.locator("#charts canvas").nth(3).wait_for()
        assert await violations(axe, page) == []
        await page.locator("#failures tbody button").click()
        await page.locator("#detail pre").wait_for()
        assert await violations(axe, page) == []
        freed.set()
        await asyncio.gather(*jobs)


async def violations(axe: Any, page: Any) -> list[tuple[str, str]]:
    found = (await axe.run(page)).response["violations"]
    return [(each["id"], node["html"]) for each in found for node in each["nodes"]]


async def test_how_large_batches_were() -> None:
    director = Director("simulated:1", max_queue=None)

    @director.function(max_batch_size=32)
    def embed(device: object, items: list[int]) -> list[int]:
        return items

    async with opened(director) as page:
        assert not await page.locator("#batches").is_visible()
        calls = [asyncio.ensure_future(embed(number)) for number in range(64)]
        await asyncio.gather(*calls)
        await page.locator("#batches tbody").get_by_text("17 to 32").wait_for()
        assert (await page.locator("#figures").inner_text()).count("Jobs per call") == 1


async def test_one_job_in_a_while_can_be_seen_in_the_charts() -> None:
    """A line needs two points."""
    director = Director("simulated:1")
    async with opened(director) as page:
        await director.run(str)
        await page.wait_for_timeout(3000)
        coloured = """canvas => {
            const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const vivid = (_, at) => at % 4 === 0 && dots[at + 3] > 200 && Math.abs(dots[at] - dots[at + 1]) > 20;
            return dots.filter(vivid).length;
        }"""
        assert await page.locator("#charts canvas").nth(1).evaluate(coloured) > 4


@pytest.mark.parametrize("width", [390, 1280])
async def test_an_hour_of_work_has_its_place(width: int) -> None:
    director = Director("simulated:1", max_queue=None)
    async with opened(director, width=width) as page:
        jobs = [director.submit(lambda device: device.work(0.1)) for _ in range(20_000)]
        await page.get_by_text("min of work").wait_for()
        for job in jobs:
            job.cancel()
        stands_out = "all => all.filter(it => it.scrollWidth > it.clientWidth).map(it => it.innerText)"
        assert await page.locator("#figures div").evaluate_all(stands_out) == []


async def test_nothing_is_lost_while_the_browser_asks_for_the_next_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends after a while, here several times a second; frames that are cut until the next are told by that."""
    monkeypatch.setattr("director.dashboard._feed.INTERVAL", 0.02)

    director = Director("simulated:2")
    feed = Dashboard(director)._source

    async def look_too() -> None:
        """Somebody else has frames cut meanwhile."""
        async with contextlib.aclosing(feed.frames()) as frames:
            async for _ in frames:
                pass

    async with opened(director, site=lambda _: Site(feed, longest_stream=0.3)) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        other = asyncio.create_task(look_too())
        for _ in range(150):
            await director.run(lambda device: device.work(0.001))
            await asyncio.sleep(0.02)
        await page.locator("#figures").get_by_text("150 in all").wait_for()
        told = [await each.get_attribute("aria-label") for each in await page.locator(".devices canvas").all()]
        assert sum(int(re.findall(r"with (\d+) jobs?", each)[0]) for each in told) == 150
        assert len([url for url in asked if url.endswith("/events")]) >= 4
        other.cancel()


@pytest.mark.parametrize("fragment", ["device=%E0%A4%A", "job=../snapshot", "job=", "nothing"])
async def test_addresses_that_make_no_sense_are_no_trouble(fragment: str) -> None:
    async with opened(Director("simulated:1")) as page:
        await page.goto(f"{page.url}#{fragment}")
        await page.wait_for_timeout(300)
        assert not await page.get_by_role("dialog").is_visible()
        assert await page.inner_text("#link-text") == "live"
