"""A site of several worker processes, as its clients see it."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

from server.conftest import PATIENCE


class Site:
    """The workers, by one port."""

    def __init__(self, port: int, master: int) -> None:
        self.port = port
        self.master = master

    async def get(self, path: str) -> tuple[int, Any]:
        """One request over a connection of its own."""
        status, body = await self.read(path)
        return status, json.loads(body)

    async def read(self, path: str) -> tuple[int, bytes]:
        """The same; the answer as it is."""
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def answers(self, path: str, *told: Any) -> None:
        """Wait for an answer: what a worker knows of the server is up to 0.2 seconds old."""
        async with asyncio.timeout(PATIENCE):
            while (await self.get(path))[: len(told)] != told:
                pass

    async def workers(self, count: int) -> dict[int, Any]:
        """What so many workers have answered, by process."""
        found: dict[int, Any] = {}

        async def look() -> bool:
            for status, told in await asyncio.gather(*(self.get("/who") for _ in range(2))):
                if status == 200:
                    found[told.pop("worker")] = told
            return len(found) >= count

        async with asyncio.timeout(PATIENCE):
            while not await look():
                pass
        return found
