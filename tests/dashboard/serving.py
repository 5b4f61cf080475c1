"""A real server with a page on a real port, and a Chromium that looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest

from director.dashboard import Dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from director import Director

PATIENCE = 10_000  # milliseconds

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@contextlib.asynccontextmanager
async def served(app: Any, **settings: Any) -> AsyncIterator[tuple[str, Any]]:
    """Serve an ASGI app by uvicorn until the end of the block; its address, and the server."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="error", **settings)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """A headless Chromium, the system's own."""
    playwright = pytest.importorskip("playwright.async_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []  # it refuses to run as root otherwise
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def opened(
    director: Director, *, site: Callable[[Director], Any] = Dashboard, width: int = 1280, **settings: Any
) -> AsyncIterator[Any]:
    """The page of a Director, which is started, in a browser.

    Whatever the page complains about, asks of elsewhere, or asks its user fails the test.
    """
    complaints: list[str] = []
    async with served(site(director)) as (address, _), director, chromium() as browser:
        page = await browser.new_page(viewport={"width": width, "height": 900}, **settings)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if not request.url.startswith(address) else None
        )
        page.on("dialog", lambda dialog: complaints.append(f"{dialog.type}: {dialog.message}"))
        await page.goto(address)
        await page.wait_for_selector("[data-link=live]")
        yield page
    assert complaints == []
