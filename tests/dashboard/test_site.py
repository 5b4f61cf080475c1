"""The ASGI app: every address, mounted anywhere, reading only."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import director.dashboard
from dashboard.conftest import Browser
from director import Director
from director.dashboard import Dashboard
from director.dashboard._site import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director.testing import TestClock

PAGE = Path(director.dashboard.__file__).parent / "page"


@pytest.fixture
async def dashboard(clock: TestClock, quick: None) -> AsyncIterator[Dashboard]:
    director = Director("simulated:2", clock=clock, name="vision")
    dashboard = Dashboard(director)
    async with director:
        await director.run(str, name="warm-up")
        yield dashboard


async def test_the_page_and_everything_that_it_needs(dashboard: Dashboard) -> None:
    browser = Browser(dashboard)
    page = await browser.get("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    needed = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert {"page.css", "app.js", "vendor/uPlot.iife.min.js"} <= set(needed)
    modules = ["app.js", "enter.js"]
    for module in modules:
        answer = await browser.get(f"/{module}")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        modules += [name for name in re.findall(r'from "\./([^"]+)"', answer.text) if name not in modules]
    for path in needed:
        assert (await browser.get(f"/{path}")).status == 200, path
    assert {path.name for path in PAGE.glob("*.js")} == set(modules), "a module that nothing imports"


def test_nothing_of_the_page_comes_from_elsewhere() -> None:
    own = [path for path in PAGE.glob("*") if path.is_file() and path.suffix in (".html", ".js", ".css")]
    assert own
    for path in own:
        assert re.findall(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]+""", path.read_text()) == [], path


def test_the_licence_of_what_is_not_ours_is_there() -> None:
    assert "Copyright (c) 2022 Leon Sorokin" in (PAGE / "vendor" / "uPlot-LICENSE.txt").read_text()


async def test_headers_keep_the_page_to_itself(dashboard: Dashboard) -> None:
    headers = (await Browser(dashboard).get("/")).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_a_file_that_the_browser_has_is_not_sent_again(dashboard: Dashboard) -> None:
    browser = Browser(dashboard)
    first = await browser.get("/page.css")
    again = await browser.get("/page.css", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert (await browser.get("/page.css", if_none_match='"other"')).status == 200


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/..%2f", "/page", "/vendor/", "/__init__.py", "/nothing", "/jobs", "/jobs/1/2", "//"],
)
async def test_other_addresses_are_not_there(path: str, dashboard: Dashboard) -> None:
    answer = await Browser(dashboard).get(path)
    assert answer.status == (200 if path == "//" else 404)


@pytest.mark.parametrize("root", ["", "/gpu", "/a/b"])
async def test_it_can_be_mounted_anywhere(root: str, dashboard: Dashboard) -> None:
    browser = Browser(dashboard, root_path=root)
    assert (await browser.get("/")).status == 200
    assert (await browser.get("/page.css")).status == 200
    assert (await browser.get("/snapshot")).json()["name"] == "vision"


async def test_a_mount_that_takes_its_path_off(dashboard: Dashboard) -> None:
    """As Litestar does: the path is what follows, the root path is told all the same."""
    browser = Browser(dashboard)
    answer: list[Any] = []
    scope = browser.scope("/") | {"root_path": "/gpu", "raw_path": b"/gpu/"}

    async def send(message: Any) -> None:
        answer.append(message)

    await dashboard(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert answer[0]["status"] == 200


@pytest.mark.parametrize("raw", ["/gpu", "/x/gpu"])
async def test_without_the_last_slash_the_browser_is_sent_to_it(raw: str, dashboard: Dashboard) -> None:
    browser = Browser(dashboard, root_path=raw)
    answer = await browser.get("")
    assert (answer.status, answer.headers["location"]) == (307, "./gpu/")


async def test_a_server_that_does_not_tell_the_raw_path(dashboard: Dashboard) -> None:
    answer: list[Any] = []
    scope = Browser(dashboard, root_path="/g\r\npu").scope("") | {"raw_path": None}

    async def send(message: Any) -> None:
        answer.append(message)

    await dashboard(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert (answer[0]["status"], dict(answer[0]["headers"])[b"location"]) == (307, b"./g%0D%0Apu/")


async def test_the_stream(dashboard: Dashboard) -> None:
    answer = await Browser(dashboard).get("/events", leave_after=3)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    whole, *frames = answer.frames()
    assert whole["identity"]["name"] == "vision"
    ids = [int(line.removeprefix("id: ")) for line in answer.text.splitlines() if line.startswith("id: ")]
    assert ids == [whole["number"], *[frame["number"] for frame in frames]]
    assert len(frames) >= 2


@pytest.mark.parametrize("how", ["header", "query"])
async def test_the_stream_goes_on_after_the_last_that_was_seen(how: str, dashboard: Dashboard) -> None:
    browser = Browser(dashboard)
    seen = (await browser.get("/events", leave_after=3)).frames()
    last = seen[-1]["number"]
    if how == "header":
        (frame, *_) = (await browser.get("/events", leave_after=1, last_event_id=str(last))).frames()
    else:
        (frame, *_) = (await browser.get(f"/events?after={last}", leave_after=1)).frames()
    assert "identity" not in frame
    assert frame["number"] == last + 1


@pytest.mark.parametrize("query", ["every=nan", "every=-1", "every=x", "after=x", "after=9999999999999999999999"])
async def test_wishes_that_make_no_sense_are_no_trouble(query: str, dashboard: Dashboard) -> None:
    assert (await Browser(dashboard).get(f"/events?{query}", leave_after=1)).status == 200


async def test_a_stream_ends_by_itself_so_that_the_server_can_leave(dashboard: Dashboard) -> None:
    site = Site(dashboard._source, longest_stream=0.05)
    answer = await Browser(site).get("/events")
    assert answer.frames()


async def test_a_job_by_its_number(dashboard: Dashboard) -> None:
    browser = Browser(dashboard)
    assert (await browser.get("/jobs/1")).json()["name"] == "warm-up"
    assert (await browser.get("/jobs/2")).status == 404
    assert (await browser.get("/jobs/99999999999999999999")).status == 404
    assert (await browser.get("/failures/1")).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_it_only_reads(method: str, dashboard: Dashboard) -> None:
    answer = await Browser(dashboard).get("/", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/events", "/snapshot", "/jobs/1", "/page.css"])
async def test_head_is_get_without_the_body(path: str, dashboard: Dashboard) -> None:
    answer = await Browser(dashboard).get(path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")


async def test_from_elsewhere_everything_is_refused(dashboard: Dashboard) -> None:
    browser = Browser(dashboard, client=("10.0.0.7", 5000))
    for path in ("/", "/events", "/snapshot", "/jobs/1", "/failures/1", "/page.css", "/nothing"):
        assert (await browser.get(path)).status == 403, path


async def test_a_token_in_the_address_becomes_a_cookie(clock: TestClock) -> None:
    dashboard = Dashboard(Director("simulated:1", clock=clock), token="s3cret")
    browser = Browser(dashboard, root_path="/gpu", client=("10.0.0.7", 5000))
    refused = await browser.get("/")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    shown = await browser.get("/?token=s3cret")
    assert (shown.status, shown.headers["location"]) == (307, "./")
    cookie = shown.headers["set-cookie"].partition(";")[0]
    assert (await browser.get("/", cookie=cookie)).status == 200
    entered = await browser.get("/session", authorization="Bearer s3cret")
    assert entered.headers["set-cookie"] == shown.headers["set-cookie"]
    assert "Path=/gpu; HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
    assert (await browser.get("/", authorization="Bearer s3cret")).status == 200
    assert (await browser.get("/snapshot?token=s3cret")).status == 200


async def test_the_page_that_takes_the_token_out_of_the_address(clock: TestClock) -> None:
    """What stands behind the # is never sent to a server: the page shows it in a header."""
    dashboard = Dashboard(Director("simulated:1", clock=clock), token="s3cret")
    browser = Browser(dashboard, client=("10.0.0.7", 5000))
    asks = await browser.get("/")
    assert (asks.status, asks.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert asks.headers["cache-control"] == "no-store"
    needed = re.findall(r'(?:href|src)="([^"#]+)"', asks.text)
    assert [(await browser.get(f"/{path}")).status for path in needed] == [200] * 3
    for path in ("/session", "/events", "/snapshot", "/jobs/1", "/app.js", "/enter.html"):
        assert (await browser.get(path)).status == 401, path
    assert (await browser.get("/session", authorization="Bearer wrong")).status == 401
    mounted = Browser(dashboard, root_path="/gpu")
    assert (await mounted.get("")).headers["location"] == "./gpu/"


async def test_without_a_token_there_is_no_session(dashboard: Dashboard) -> None:
    assert (await Browser(dashboard).get("/session")).status == 404


async def test_a_source_that_is_gone_is_a_bad_gateway() -> None:
    class Gone:
        async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncIterator[tuple[int, bytes]]:
            raise ConnectionError("the app has gone")
            yield

        async def snapshot(self) -> dict[str, Any]:
            raise ConnectionError("the app has gone")

    browser = Browser(Site(Gone()))  # type: ignore[arg-type]
    for path in ("/events", "/snapshot"):
        answer = await browser.get(path)
        assert (answer.status, answer.text) == (502, "the app has gone\n")


async def test_a_source_that_goes_ends_the_stream() -> None:
    class Going:
        async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncIterator[tuple[int, bytes]]:
            yield 1, b"{}"
            raise ConnectionError("the app has gone")

    answer = await Browser(Site(Going())).get("/events")  # type: ignore[arg-type]
    assert (answer.status, answer.frames()) == (200, [{}])


async def test_as_a_whole_app_it_starts_and_stops(dashboard: Dashboard) -> None:
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    said: list[Any] = []

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        said.append(message["type"])

    await dashboard({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await dashboard({"type": "websocket"}, receive, send)
    assert said[-1] == "websocket.close"
