"""The other side of the wire, in a process of its own: `python -m benchmarks.http.client < order > outcome`.

An order is JSON: the port, and either `moments` (open loop: requests come when they come, however slow the answers are)
or `clients` and `seconds` (closed loop: each client asks again as soon as it is answered). Latencies of the open loop
count from the moment at which a request was due, not from when this client got round to sending it. The outcome has the
share of a core that the client itself has used.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any, TypeVar, cast

CONNECTIONS = 1024  # most at once, or a few more while some are being made
PATIENCE = 15.0  # seconds for what is not answered at the end
REQUEST = b'POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"x": 3.5}'
ANSWER = 7.0


class Connection(asyncio.Protocol):
    """One connection, kept alive; one request at a time.

    It shares the cores with the server, so it looks at what is as it was in the answer before only once.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._got = b""
        self._head, self._length = b"", 0
        self._right = b""  # a body that was found to be right
        self._answered: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def ask(self) -> asyncio.Future[bool]:
        """Send the request; the future tells whether it was answered rightly."""
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(REQUEST)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        if head != self._head:  # once a second, when the date in it changes
            self._head, self._length = head, length_in(head)
        if len(rest) >= self._length:
            self._got = rest[self._length :]
            self.settle(self._is_right(rest[: self._length]))

    def connection_lost(self, error: Exception | None) -> None:
        self.settle(False)

    def settle(self, is_right: bool) -> None:
        """The answer has come, or never will."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(is_right)

    def _is_right(self, body: bytes) -> bool:
        if self._head[9:12] != b"200":
            return False
        if body != self._right and json.loads(body)["y"] == ANSWER:
            self._right = body
        return body == self._right


def length_in(head: bytes) -> int:
    """Of the body, as the head of an answer tells it."""
    return next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))


class Insisting(Connection):
    """Asks again as soon as it is answered; `over` when it was answered after `end`, or wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.end = 0.0
        self.count = 0

    def settle(self, is_right: bool) -> None:
        if is_right and time.perf_counter() < self.end:
            self.count += 1
            self.transport.write(REQUEST)
        elif not self.over.done():
            self.over.set_result(None)


C = TypeVar("C", bound=Connection)


async def connect(port: int, kind: type[C]) -> C:
    _, connection = await asyncio.get_running_loop().create_connection(kind, "127.0.0.1", port)
    return connection


async def closed_loop(port: int, clients: int, seconds: float) -> dict[str, Any]:
    """Answers while all clients are at it."""
    connections = [await connect(port, Insisting) for _ in range(clients)]
    end = time.perf_counter() + seconds
    for connection in connections:
        connection.end = end
        connection.transport.write(REQUEST)
    await asyncio.wait([connection.over for connection in connections])
    for connection in connections:
        connection.transport.close()
    return {"answers": sum(connection.count for connection in connections), "seconds": seconds}


class OpenLoop:
    """Requests at given moments, over as many connections as it takes."""

    def __init__(self, port: int, moments: list[float]) -> None:
        self._port = port
        self._moments = moments
        self._idle: list[Connection] = []
        self._open: list[Connection] = []
        self._due: deque[int] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = 0.0
        self.latencies: list[float | None] = [None] * len(moments)

    async def run(self) -> None:
        self._idle = [await self._connect() for _ in range(64)]
        self._began = time.perf_counter() + 0.1
        for number, moment in enumerate(self._moments):
            if (early := self._began + moment - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            self._send(number)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        for connection in self._open:
            connection.transport.close()

    async def _connect(self) -> Connection:
        connection = await connect(self._port, Connection)
        self._open.append(connection)
        return connection

    def _send(self, number: int) -> None:
        if len(self._tasks) >= CONNECTIONS:
            self._due.append(number)
            return
        task = asyncio.get_running_loop().create_task(self._ask(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, number: int) -> None:
        connection = self._idle.pop() if self._idle else await self._connect()
        while True:
            if await connection.ask():
                self.latencies[number] = time.perf_counter() - self._began - self._moments[number]
            if not self._due:
                break
            number = self._due.popleft()
        self._idle.append(connection)


async def serve_order(order: dict[str, Any]) -> dict[str, Any]:
    began, used = time.perf_counter(), time.process_time()
    if "clients" in order:
        outcome = await closed_loop(order["port"], order["clients"], order["seconds"])
    else:
        loop = OpenLoop(order["port"], order["moments"])
        await loop.run()
        outcome = {"latencies": loop.latencies}
    return outcome | {"share": (time.process_time() - used) / (time.perf_counter() - began)}


if __name__ == "__main__":
    import uvloop

    json.dump(uvloop.run(serve_order(json.load(sys.stdin))), sys.stdout)
