"""What these tests are made of: an application called as a server calls it, and a real server with raw clients."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director.asgi._types import App, Message

PATIENCE = 20.0  # real seconds after which something that should come is called missing
LEFT = {"type": "http.disconnect"}


def body(content: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


@dataclass
class Exchange:
    """One request to an application, made by hand: what the server would say, and what the application sent."""

    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "http"
    scope: dict[str, Any] = field(default_factory=dict)
    sent: list[Message] = field(default_factory=list)
    asked: int = 0  # how often somebody asked for a message

    def __post_init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        raw = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        self.scope = {"type": self.kind, "path": self.path, "method": self.method, "headers": raw, **self.scope}

    def say(self, *messages: Message) -> None:
        for message in messages:
            self._messages.put_nowait(message)

    async def receive(self) -> Message:
        self.asked += 1
        return await self._messages.get()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def through(self, app: App) -> Exchange:
        """Have `app` serve it."""
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def answered(self) -> dict[str, str]:
        """Headers of the answer."""
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Reply:
    """What came over the wire."""

    status: int
    headers: dict[str, str]
    text: bytes

    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, content: bytes = b"", **headers: str) -> None:
        """Send a request and don't wait for the answer."""
        headers = {"host": "test", **headers}
        lines = [f"{method} {path} HTTP/1.1", f"content-length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.write("\r\n".join([*lines, "", ""]).encode() + content)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self) -> Reply:
        """The whole answer."""
        async with asyncio.timeout(PATIENCE):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            if headers.get("transfer-encoding") == "chunked":
                text = b"".join([chunk async for chunk in self.chunks()])
            else:
                text = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(first.split()[1]), headers, text)

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()

    async def leave(self) -> None:
        """Hang up, whatever is on its way."""
        self._writer.transport.abort()
        await asyncio.sleep(0)


class Served:
    """A server that runs on this event loop."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    async def ask(self, method: str, path: str, content: bytes = b"", **headers: str) -> Client:
        client = await self.connect()
        await client.ask(method, path, content, **headers)
        return client

    async def get(self, path: str, **headers: str) -> Reply:
        return await (await self.ask("GET", path, **headers)).reply()

    async def post(self, path: str, content: bytes = b"", **headers: str) -> Reply:
        return await (await self.ask("POST", path, content, **headers)).reply()

    async def hang_up(self) -> None:
        for client in self._clients:
            await client.leave()


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[Served]:
    """`app` behind a real uvicorn, on a real socket."""
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=2, **options)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        async with asyncio.timeout(4 * PATIENCE):
            while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)
        assert server.started, "the application did not start"
        site = Served(server, listening.getsockname()[1])
        try:
            yield site
        finally:
            await site.hang_up()
            server.should_exit = True
            await task
