"""The page in a real browser: it shows what happens, in both colours, by keyboard too, and complains about nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome

from dashboard.serving import chromium, opened, served
from director import Director, Model, report
from director.dashboard import Dashboard
from director.testing import simulated_devices

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
        assert await page.locator(".devices tbody th small").all_inner_texts() == ["detector", "detector"]
        assert "detector loaded in" in await page.locator(".devices tbody th small").first.get_attribute("title")
        assert await page.locator("#jobs tbody tr").count() == 2
        gate.open()
        await asyncio.gather(*jobs)
        await page.get_by_text("Nothing waits.").wait_for()
        with contextlib.suppress(ValueError):
            await director.run(fail, "<b>picture</b> 7 is no good", name="detect")
        await page.locator("#failures tbody td").get_by_text("<b>picture</b> 7 is no good").wait_for()
        assert await figure(page, "Failed, last minute") == "1"
        assert "1 failed since the start" in await page.inner_text("#figures")
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
        assert names == ["Devices", "The last five minutes", "Functions", "Waiting", "Failures", "Jobs"]
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
        assert await figure(page, "Throughput") == "0/s"
        await page.get_by_role("button", name="Pause").click()
        await page.wait_for_selector("[data-link=live]")
        await page.locator("#figures").get_by_text("last 10 s, 1 in all").wait_for()


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


async def test_the_charts_end_with_the_numbers_of_the_header() -> None:
    director = Director("simulated:2")
    async with opened(director) as page:
        await asyncio.gather(*[director.submit(str, tenant="alice") for _ in range(20)])
        await page.locator("#tenants tbody").get_by_text("alice").wait_for()
        both = await page.evaluate(
            """() => {
                const texts = (it, what) => [...it.querySelectorAll(what)].map(part => part.textContent);
                const figures = Object.fromEntries([...document.querySelectorAll("#figures div")].map(it => [
                    ...texts(it, "dt"), texts(it, "dd > *")]));
                const charts = [...document.querySelectorAll("#charts figure")].map(it => [
                    ...texts(it, "figcaption"), ...texts(it, ".u-series:not(:first-child) .u-value")]);
                return [figures, charts];
            }"""
        )
        figures, charts = both
        assert charts == [
            ["Waiting and running", figures["Waiting"][0], figures["Running"][0]],
            ["Wait", figures["Wait p50"][0], figures["Wait p50"][1].split(", ")[0].removeprefix("p99 ")],
            ["Throughput per second", figures["Throughput"][0].removesuffix("/s"), "0", "0"],
            ["Run time", figures["Run time p50"][0], figures["Run time p50"][1].split(", ")[0].removeprefix("p99 ")],
        ]
        for name in ("Slots busy", "Throughput", "Wait p50", "Run time p50"):
            assert "last 10 s" in figures[name][1]


async def test_colours_are_the_same_at_each_load_and_in_each_app() -> None:
    """Also where the functions come in another order."""
    seen = []
    names = ["detect", "embed", "caption", "stuck"]
    for order in (names, names[::-1]):
        director = Director("simulated:1")
        async with opened(director) as page:
            for name in order:
                await director.run(str, name=name)
            for _ in range(2):
                await page.locator("#legend li").get_by_text(names[-1]).wait_for()
                legend = "[...document.querySelectorAll('#legend li')]"
                seen.append(await page.evaluate(f"{legend}.map(it => [it.textContent, it.firstChild.className])"))
                await page.reload()
    assert seen[0][:4] == sorted(seen[0][:4])
    assert len({mark for _, mark in seen[0][:4]}) == 4
    assert seen[1:] == [seen[0]] * 3


@pytest.mark.parametrize("which", ["Running", "Ended"])
async def test_everything_fits_a_phone(gate: Gate, which: str) -> None:
    """No table is wider than the screen, with names and numbers as long as they come."""
    model = Model(lambda device: device.label, name="a-model-with-a-rather-long-name", memory="75GiB")
    director = Director(simulated_devices(2, memory="80GiB"), slots=2, name="a service with a rather long name")
    async with opened(director, width=360) as page:
        for _ in range(3):
            await asyncio.gather(
                director.run(str, name="a_function_with_a_rather_long_name", tenant="a tenant with a long name"),
                outcome(director.run(fail, "a long message about what was wrong with it", name="decode_and_resize")),
                director.run(lambda _: None, model=model),
            )
        jobs = [director.submit(gate, name="detect_and_classify", tenant="bob") for _ in range(6)]
        await gate.begun(4)
        await page.get_by_role("radio", name=which).check()
        await page.locator("#tenants tbody").get_by_text("a tenant").wait_for()
        await page.locator("#waiting tbody").get_by_text("detect_and_classify").wait_for()
        wide = (
            "[...document.querySelectorAll('table, .scroll, #figures div, header > *')]"
            ".filter(it => it.offsetParent && it.getBoundingClientRect().right > innerWidth).map(it => it.id)"
        )
        assert await page.evaluate(wide) == []
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        gate.open()
        await asyncio.gather(*jobs)


async def test_the_jobs_of_a_batch_are_one_row(gate: Gate) -> None:
    def embed(device: object, items: list[int]) -> list[int]:
        gate(device)
        return items

    director = Director("simulated:1")
    async with opened(director) as page:
        embeddings = director.function(embed, max_batch_size=16, max_wait=1.0)
        jobs = [embeddings.submit(number) for number in range(16)]
        await gate.begun()
        await page.locator("#jobs tbody").get_by_text("+15").wait_for()
        assert await page.locator("#jobs tbody tr").count() == 1
        assert await figure(page, "Running") == "16"
        gate.open()
        await asyncio.gather(*jobs)
        await page.get_by_role("radio", name="Ended").check()
        await page.locator("#jobs tbody").get_by_text("+15").wait_for()
        assert await page.locator("#jobs tbody tr").count() == 1
