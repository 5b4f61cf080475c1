"""A request leaves nothing for the cycle collector, whose full passes stop the event loop: 60 ms each, in a service."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

from asgi.wire import PATIENCE, served
from director import Director
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = 50


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def ours() -> Counter[str]:
    """What only the collector would find, of our own and of asyncio, by type."""
    gc.garbage.clear()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    return Counter(type(thing).__name__ for thing in gc.garbage if _is_ours(type(thing)))


def _is_ours(kind: type[Any]) -> bool:
    return kind.__module__.startswith(("director", "_asyncio", "asyncio"))


async def test_a_request_that_waits_for_a_batch(uncollected: None) -> None:
    director = Director("simulated:1")
    app = FastAPI(lifespan=lifespan(director))
    install(app, director)

    @director.function(max_batch_size=4)
    def double(_device: Any, items: list[float]) -> list[float]:
        return [2 * item for item in items]

    @app.get("/double")
    async def answer(x: float) -> float:
        return await double.submit(x)

    async with served(app) as site:
        assert (await site.get("/double?x=2")).status == 200
        ours()
        for _ in range(REQUESTS):
            replies = await asyncio.wait_for(asyncio.gather(*[site.get("/double?x=2") for _ in range(2)]), PATIENCE)
            assert [reply.status for reply in replies] == [200, 200]
        found = ours()
        assert found.total() < REQUESTS, found
