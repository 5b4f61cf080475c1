"""The page in a real browser: it shows what happens, in both colours, by keyboard too, and complains about nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from dashboard.serving import chromium, opened, served
from director import Director, Model, report
from director.dashboard import Dashboard

if TYPE_CHECKING:
    from harness.gates import Gate

pytestmark = pytest.mark.slow


def fail(device: object, text: str) -> None:
    raise ValueError(text)


async def figure(page: Any, name: str) -> str:
    """The key figure below a name."""
    return str(await page.locator(f"#figures div:has(dt:text-is('{name}')) dd span").inner_text())


async def test_it_shows_what_happens(gate: Gate) -> None:
    detector = Model(lambda device: device.label, name="detector")
    director = Director("simulated:2", name="vision")
    async with opened(director) as page:
        assert await page.inner_text("#name") == "vision"
        assert await page.inner_text("#state") == "open"
        await page.get_by_text("Nothing waits.").wait_for()
        jobs = [director.submit(gate, name="detect", model=detector) for _ in range(5)]
        await gate.begun(2)
        await page.locator("#waiting tbody").get_by_text("detect").wait_for()
        assert await figure(page, "Waiting") == "3"
        assert await figure(page, "Running") == "2"
        assert await page.inner_text("#why") == "every slot is busy"
        assert await page.locator(".devices tbody tr").count() == 2
        assert "detector (loaded in" in await page.inner_text(".devices tbody")
        assert await page.locator("#jobs tbody tr").count() == 2
        gate.open()
        await asyncio.gather(*jobs)
        await page.get_by_text("Nothing waits.").wait_for()
        with contextlib.suppress(ValueError):
            await director.run(fail, "<b>picture</b> 7 is no good", name="detect")
        await page.locator("#failures tbody td").get_by_text("<b>picture</b> 7 is no good").wait_for()
        assert await figure(page, "Failed") == "1"
        assert await page.inner_text("#news") == "New failure: ValueError in detect"
        assert await page.locator("#charts canvas").count() == 4


async def test_looking_into_a_job_and_a_failure(gate: Gate) -> None:
    director = Director("simulated:1")

    def step(device: object) -> None:
        report(0.25)
        gate(device)

    async with opened(director) as page:
        with contextlib.suppress(ValueError):
            await director.run(fail, "no good", name="decode")
        job = director.submit(step, name="detect", priority=5)
        await gate.begun()
        await page.locator("#jobs").get_by_role("button", name=str(job.id)).click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_text(f"Job {job.id}: detect").wait_for()
        assert await dialog.locator("dd").all_inner_texts() != []
        assert "running" in await dialog.inner_text()
        assert await page.evaluate("location.hash") == f"#job={job.id}"
        gate.open()
        await job
        await dialog.get_by_text("succeeded").wait_for()
        await page.keyboard.press("Escape")
        await dialog.wait_for(state="hidden")
        await page.get_by_role("button", name="ValueError in decode").click()
        await dialog.get_by_text("Traceback (most recent call last)").wait_for()
        await dialog.get_by_role("button", name="job 1").click()
        await dialog.get_by_text("Job 1: decode").wait_for()
        await page.goto(page.url.partition("#")[0] + f"#job={job.id}")
        await page.reload()
        await dialog.get_by_text(f"Job {job.id}: detect").wait_for()


async def test_by_keyboard_alone(gate: Gate) -> None:
    """Every control can be reached in order and used; the focus stays where it is while the page changes."""
    director = Director("simulated:2")
    async with opened(director) as page:
        job = director.submit(gate, name="detect")
        await gate.begun()
        await page.locator("#jobs tbody button").wait_for()
        reached = []
        for _ in range(12):
            await page.keyboard.press("Tab")
            reached.append(
                await page.evaluate("[document.activeElement].map(it => it.textContent.trim() || it.id || it.value)[0]")
            )
        assert reached[:5] == ["Skip to the devices", "Pause", "Auto", "simulated:0", "simulated:1"]
        assert {"Show", "number", str(job.id)} <= set(reached)
        await page.locator("#jobs tbody button").focus()
        for _ in range(3):
            await director.run(str, devices=[1 - director.devices.index(job.device)])
            await page.wait_for_timeout(300)
        assert await page.evaluate("document.activeElement.textContent") == str(job.id)
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog").wait_for()
        await page.keyboard.press("Escape")
        assert await page.evaluate("document.activeElement.textContent") == str(job.id), "back where it was"
        await page.get_by_label("Number of a job").fill(str(job.id))
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog").get_by_text(f"Job {job.id}: detect").wait_for()
        gate.open()
        await job


async def test_what_a_screen_reader_finds() -> None:
    director = Director("simulated:2", name="vision")
    async with opened(director) as page:
        await director.run(str)
        await page.wait_for_timeout(600)
        assert await page.get_by_role("heading", level=1).inner_text() == "vision"
        names = await page.get_by_role("heading", level=2).all_inner_texts()
        assert names == ["Devices", "The last five minutes", "Waiting", "Failures", "Jobs"]
        assert await page.get_by_role("table").count() >= 1
        for picture in await page.get_by_role("img").all():
            assert await picture.get_attribute("aria-label"), await picture.evaluate("it => it.outerHTML")
        described = await page.locator(".devices canvas").first.get_attribute("aria-label")
        assert described.startswith("In the last minute busy for")
        unnamed = (
            "[...document.querySelectorAll('button, input, meter, progress')]"
            ".filter(it => !(it.textContent.trim() || it.ariaLabel || it.labels?.length)).length"
        )
        assert await page.evaluate(unnamed) == 0
        assert await page.get_by_role("status").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_both_colours_can_be_read(scheme: str) -> None:
    """Text has a contrast of at least 4.5 to 1 to what it stands on."""
    director = Director("simulated:1")
    async with opened(director, color_scheme=scheme) as page:
        assert await page.evaluate("document.documentElement.dataset.theme") == scheme
        colours = await page.evaluate(
            "['ink', 'soft', 'accent', 'good', 'bad', 'warn'].map(name => ["
            "getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim(),"
            "getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()])"
        )
        for text, paper in colours:
            assert contrast(text, paper) >= 4.5, (text, paper)
        await page.get_by_role("button", name="Colours: as the system has them").click()
        assert await page.evaluate("document.documentElement.dataset.theme") == "light"
        await page.get_by_role("button", name="Colours: light").click()
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
        await page.reload()
        await page.wait_for_selector("[data-link=live]")
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark", "it is remembered"


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


async def test_64_slots_and_very_many_jobs_leave_the_page_quick() -> None:
    """Drawing is bounded by what is on the screen, not by how much happens."""
    director = Director("simulated:64", max_queue=None)
    async with opened(director) as page:
        for _ in range(40):
            await asyncio.gather(*[director.submit(str) for _ in range(500)])
        await page.wait_for_timeout(500)
        took = await page.evaluate(
            """async () => {
                const tasks = [];
                const observer = new PerformanceObserver(list => tasks.push(...list.getEntries()));
                observer.observe({ entryTypes: ['longtask'] });
                await new Promise(resolve => setTimeout(resolve, 2000));
                return Math.max(0, ...tasks.map(task => task.duration));
            }"""
        )
        assert await page.locator(".devices tbody tr").count() == 64
        assert took < 1000, "no task of the page may freeze it, on however busy a machine"


async def test_pause_and_the_end_of_the_app() -> None:
    director = Director("simulated:1")
    async with opened(director) as page:
        await page.get_by_role("button", name="Pause").click()
        assert await page.inner_text("#link-text") == "paused"
        await director.run(str)
        await page.wait_for_timeout(700)
        assert await figure(page, "Ended per second") == "0"
        await page.get_by_role("button", name="Pause").click()
        await page.wait_for_selector("[data-link=live]")
        await page.locator("#figures").get_by_text("1 in all").wait_for()


async def test_without_the_token_the_page_is_not_there() -> None:
    dashboard = Dashboard(Director("simulated:1"), token="s3cret")
    async with served(dashboard) as (address, _), chromium() as browser:
        page = await browser.new_page()
        answer = await page.goto(address)
        assert answer.status == 401
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_role("button", name="Enter").click()
        await page.get_by_text("That is not the token.").wait_for()
        await page.get_by_label("Token").fill("s3cret")
        await page.get_by_role("button", name="Enter").click()
        await page.wait_for_selector("[data-link=live]")


async def test_a_token_in_the_address_is_never_sent_in_it() -> None:
    dashboard = Dashboard(Director("simulated:1"), token="s\xe9cret /+%")
    async with served(dashboard) as (address, _), chromium() as browser:
        page = await browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{address}/#token=s%C3%A9cret%20%2F%2B%25")
        await page.wait_for_selector("[data-link=live]")
        assert page.url == f"{address}/", "the token has left the address"
        assert not any("cret" in url.partition("#")[0] for url in asked)
        await page.goto("about:blank")
        await page.goto(f"{address}/#token=s%C3%A9cret%20%2F%2B%25")
        await page.wait_for_selector("[data-link=live]")
        assert page.url == f"{address}/", "also when the cookie is there already"
