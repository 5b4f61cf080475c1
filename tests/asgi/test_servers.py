"""What goes over one connection, with several servers: kept alive, pipelined, without bodies, and left."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, rested, until

from asgi.wire import Served, served
from director import Director
from director.asgi import CancelOnDisconnect, HealthEndpoints, ProblemMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager


@asynccontextmanager
async def hypercorn(app: Any) -> AsyncIterator[Served]:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]  # which it closes
    config.loglevel = "critical"
    config.graceful_timeout = 1
    over = asyncio.Event()
    task = asyncio.create_task(serve(app, config, shutdown_trigger=over.wait))
    site = Served(None, port)  # type: ignore[arg-type]
    try:
        await until(lambda: accepts(port))
        yield site
    finally:
        await site.hang_up()
        over.set()
        await task


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


SERVERS: dict[str, Callable[[Any], AbstractAsyncContextManager[Served]]] = {
    "httptools": lambda app: served(app, http="httptools", lifespan="off"),
    "h11": lambda app: served(app, http="h11", lifespan="off"),
    "hypercorn": hypercorn,
}


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Callable[[Any], AbstractAsyncContextManager[Served]]:
    return SERVERS[request.param]


@pytest.fixture
async def director() -> AsyncIterator[Director]:
    async with Director("simulated:1", max_queue=1) as director:
        yield director


class Service:
    """``/read`` reads the request and tells how long it is; ``/run`` leaves it unread and runs a job."""

    def __init__(self, director: Director, gate: Gate) -> None:
        self._director = director
        self._gate = gate

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/read":
            text = str(await length(receive))
        else:
            text = str(await self._director.submit(self._gate, "run"))
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


async def length(receive: Any) -> int:
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message["body"])
        more = message.get("more_body", False)
    return total


@pytest.fixture
async def app(director: Director, gate: Gate) -> Any:
    return HealthEndpoints(CancelOnDisconnect(ProblemMiddleware(Service(director, gate))), director=director)


async def test_many_requests_on_one_connection(serve: Any, app: Any, gate: Gate) -> None:
    """Read or left unread, the next one begins where it should."""
    gate.open()
    async with serve(app) as site:
        client = await site.connect()
        for size in (0, 10, 200_000, 10):
            await client.ask("POST", "/read", bytes(size))
            assert (await client.reply()).text == b"%d" % size
            await client.ask("POST", "/run", bytes(size % 1000))
            assert (await client.reply()).text == b"run"


async def test_requests_that_are_sent_before_the_answer(serve: Any, app: Any, gate: Gate) -> None:
    gate.open()
    async with serve(app) as site:
        client = await site.connect()
        for path in ("/run", "/read", "/run"):
            await client.ask("POST", path, b"image")
        assert [(await client.reply()).text for _ in range(3)] == [b"run", b"5", b"run"]


async def test_answers_to_head_have_no_body(serve: Any, app: Any, director: Director, gate: Gate) -> None:
    async with serve(app) as site:
        client = await site.connect()
        busy = [director.submit(gate)]
        await gate.begun()
        busy.append(director.submit(gate))  # and the queue is full
        for path, status in (("/readyz", b"200"), ("/livez", b"200"), ("/run", b"503")):
            await client.ask("HEAD", path)
            async with asyncio.timeout(PATIENCE):
                head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == status
        gate.open()
        await asyncio.gather(*busy)
        await client.ask("GET", "/run")
        assert (await client.reply()).text == b"run"


async def test_who_leaves_takes_the_job_along(serve: Any, app: Any, director: Director, gate: Gate) -> None:
    async with serve(app) as site:
        busy = director.submit(gate)
        await gate.begun()
        client = await site.ask("POST", "/run", b"image")
        await until(lambda: director.stats().queued == 1)
        await client.leave()
        await until(lambda: director.stats().cancelled == 1)
        gate.open()
        await busy
        await rested(director)
    assert len(gate.calls) == 1


async def test_leave_to_upload_is_given_by_who_reads(serve: Any, app: Any, gate: Gate) -> None:
    gate.open()
    head = "POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
    async with serve(app) as site:
        reading = await site.connect()
        await reading.write(head.format("/read").encode())
        async with asyncio.timeout(PATIENCE):
            assert (await reading.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await reading.write(b"image")
        assert (await reading.reply()).text == b"5"


async def test_who_does_not_read_gives_no_leave_to_upload(app: Any, gate: Gate) -> None:
    """uvicorn's are the servers that wait with it until somebody asks."""
    gate.open()
    async with served(app, lifespan="off") as site:
        client = await site.connect()
        await client.write(b"POST /run HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.reply()).status == 200
