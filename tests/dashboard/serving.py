"""A real server with a page on a real port, and a Chromium that looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, Any]]:
    """Serve an ASGI app by uvicorn until the end of the block; its address, and the server."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="error")
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
