"""A stream behind a real server: values arrive as they are made; clients that leave or stop reading free the slot."""

from __future__ import annotations

import itertools
import threading
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from harness.gates import Gate, rested, until

from asgi.wire import served
from director import Device, Director

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

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
        return StreamingResponse(self.lines())

    async def lines(self) -> AsyncIterator[str]:
        values = self.director.stream(self.generate, on_slow_reader="cancel", slow_reader_timeout=0.05)
        async with aclosing(values):
            async for value in values:
                yield value

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
