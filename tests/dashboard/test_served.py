"""The dashboard under a real server, on a real port."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from dashboard.serving import served
from director import Director
from director.dashboard import Dashboard
from director.dashboard._site import Site

if TYPE_CHECKING:
    from director.testing import TestClock

pytestmark = pytest.mark.usefixtures("quick")


async def get(address: str, path: str, **headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a path; the answer is still to be read."""
    place = urlsplit(address)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    lines = [f"GET {path} HTTP/1.1", f"Host: {place.netloc}", *(f"{key}: {value}" for key, value in headers.items())]
    writer.write("\r\n".join([*lines, "\r\n"]).encode())
    return reader, writer


async def body(address: str, path: str, **headers: str) -> bytes:
    reader, writer = await get(address, path, Connection="close", **headers)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


async def event(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next event of a stream."""
    while not (line := await reader.readline()).startswith(b"data: "):
        assert line, "the stream has ended"
    found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return found


async def test_page_and_stream(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock, name="vision")
    async with served(Dashboard(director)) as (address, _), director:
        assert b"<title>director</title>" in await body(address, "/")
        assert json.loads(await body(address, "/snapshot"))["name"] == "vision"
        reader, writer = await get(address, "/events")
        assert (await event(reader))["identity"]["name"] == "vision"
        await director.run(str)
        while (await event(reader)).get("counts", {}).get("succeeded") != 1:
            pass
        writer.close()
        await writer.wait_closed()


async def test_mounted_in_another_app(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock, name="vision")
    dashboard = Dashboard(director)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith("/gpu")
        await dashboard({**scope, "root_path": "/gpu"}, receive, send)

    async with director, served(app) as (address, _):
        assert b"<title>director</title>" in await body(address, "/gpu/")
        assert json.loads(await body(address, "/gpu/snapshot"))["name"] == "vision"


async def test_a_proxy_that_says_so_is_not_this_machine() -> None:
    async with served(Dashboard(Director("simulated:1"))) as (address, _):
        assert b"This dashboard answers only" in await body(address, "/snapshot", **{"X-Forwarded-For": "10.0.0.7"})
        assert b"This dashboard answers only" in await body(address, "/snapshot", Via="1.1 proxy")


async def test_a_proxy_that_hides_itself_is_not_this_machine() -> None:
    async with served(Dashboard(Director("simulated:1"))) as (address, _):
        place = urlsplit(address)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(b"GET /snapshot HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 403"), "nginx passes requests on in HTTP/1.0 by default"
        writer.close()
        await writer.wait_closed()


async def test_a_token_stands_in_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    dashboard = Dashboard(Director("simulated:1"), token="s3cret")
    settings = {"log_config": None, "access_log": True}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await dashboard(scope, receive, send)

    async with served(app, **settings) as (address, server):
        server.config.access_log = True
        logging.getLogger("uvicorn.access").setLevel("INFO")
        await body(address, "/", Authorization="Bearer s3cret")
        await body(address, "/session", Authorization="Bearer s3cret")
        await body(address, "/?token=s3cret")
        await body(address, "/snapshot?every=1&%74oken=s3cret")
        await body(address, "/events?token=wrong-s3cret")
    logged = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(logged) == 5
    assert "/snapshot?every=1 " in "".join(logged)
    assert "s3cret" not in caplog.text


async def test_an_open_stream_does_not_keep_the_server_from_leaving(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    dashboard = Dashboard(director)
    async with director:
        async with served(Site(dashboard._source, longest_stream=0.3)) as (address, server):
            reader, writer = await get(address, "/events")
            await event(reader)
            server.should_exit = True
        assert not server.force_exit
        writer.close()
        await writer.wait_closed()
