"""A stream behind a real server: values arrive as they are made; clients that leave or stop reading free the slot."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator  # noqa: TC003 - FastAPI reads the annotations
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from harness.gates import Gate, rested, until

from asgi.wire import served
from director import Device, Director, Stream
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from asgi.wire import Served


class Service:
    """An application with one endpoint that streams what `generate` yields."""

    def __init__(self, gate: Gate) -> None:
        self.director = Director("simulated:1")
        self.gate = gate
        self.weight = 1  # bytes of a value
        self.ended = threading.Event()
        self.app = FastAPI()
        self.app.get("/")(self.answer)

    def generate(self, device: Device) -> Iterator[str]:
        try:
            for number in itertools.count():
                self.gate(device)
                yield f"{number}".rjust(self.weight) + "\n"
        finally:
            self.ended.set()

    async def answer(self) -> StreamingResponse:
        return StreamingResponse(self.director.stream(self.generate, on_slow_reader="cancel", slow_reader_timeout=0.05))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Served]:
        async with self.director, served(self.app) as site:
            yield site


@pytest.fixture
async def service(gate: Gate) -> Service:
    return Service(gate)


async def test_values_arrive_one_by_one_and_leaving_closes_the_generator(service: Service, gate: Gate) -> None:
    async with service.open() as site:
        client = await site.ask("GET", "/")
        await client.reader.readuntil(b"\r\n\r\n")
        chunks = client.chunks()
        for number in range(3):
            gate.let(1)
            assert await anext(chunks) == b"%d\n" % number  # before the next one is made
        await client.leave()
        gate.open()  # on to the next `yield`
        await until(service.ended.is_set)
        assert await service.director.run(lambda device: device.index) == 0
        await rested(service.director)
        assert service.director.stats().cancelled == 1


async def test_a_client_that_stops_reading_is_cut(service: Service, gate: Gate) -> None:
    service.weight = 1 << 20  # so that what the system and the server keep for it is soon full
    gate.open()
    async with service.open() as site:
        client = await site.ask("GET", "/")
        await until(service.ended.is_set)
        assert await service.director.run(lambda device: device.index) == 0
        assert service.director.stats().failed == 1
        await client.leave()


# ---- server-sent events, as docs/how-to/streams.md has them


class Stories:
    """An application whose streams are opened in a dependency, and sent as events."""

    def __init__(self, gate: Gate, **options: Any) -> None:
        self.director = Director("simulated:1", **options)
        self.gate = gate
        self.app = FastAPI(lifespan=lifespan(self.director))
        install(self.app, self.director, request_deadlines=True)

        async def opened(count: int = 3) -> AsyncIterator[Stream[int]]:
            async with self.director.stream(self.generate, count, on_slow_reader="cancel") as stream:
                yield stream

        @self.app.get("/story", response_class=EventSourceResponse)
        async def story(stream: Stream[int] = Depends(opened)) -> AsyncIterator[ServerSentEvent]:  # noqa: B008
            async for number in stream:
                yield ServerSentEvent(data=number)
            yield ServerSentEvent(event="done", raw_data="")

    def generate(self, device: Device, count: int) -> Iterator[int]:
        for number in range(count):
            yield self.gate(device, number)


async def test_forty_streams_at_a_server_with_room_for_four(gate: Gate) -> None:
    stories = Stories(gate, max_queue=4)
    async with served(stories.app) as site:
        first = await site.ask("GET", "/story")
        await gate.begun()
        clients = await asyncio.gather(*[site.ask("GET", "/story") for _ in range(39)])
        await until(lambda: stories.director.stats().rejected == 35)
        assert stories.director.stats().queued == 4
        gate.open()
        replies = [await client.reply() for client in (first, *clients)]
    refused = [reply for reply in replies if reply.status == 503]
    assert len(refused) == 35
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert {(reply.headers["content-type"], reply.json()["kind"]) for reply in refused} == {
        ("application/problem+json", "queue-full")
    }
    told = [reply for reply in replies if reply.status == 200]
    assert len(told) == 5
    assert {reply.text for reply in told} == {b"data: 0\n\ndata: 1\n\ndata: 2\n\nevent: done\ndata: \n\n"}


async def test_a_client_that_leaves_while_its_stream_waits_takes_it_out_of_the_queue(gate: Gate) -> None:
    stories = Stories(gate)
    async with served(stories.app) as site:
        first = await site.ask("GET", "/story")
        await gate.begun()
        second = await site.ask("GET", "/story")
        await until(lambda: stories.director.stats().queued == 1)
        await second.leave()
        await until(lambda: stories.director.stats().cancelled == 1)
        assert stories.director.stats().queued == 0
        gate.open()
        assert (await first.reply()).status == 200
