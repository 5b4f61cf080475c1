"""A client of a web application that runs in this process, for pages of the documentation."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Start a Starlette or FastAPI application, talk to it, and end it. (httpx's own transport leaves the life out.)"""
    import httpx2

    async with app.router.lifespan_context(app) as state:

        async def living(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(living), base_url="http://test") as client:
            yield client
