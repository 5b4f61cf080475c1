"""A Director with a dashboard, on a clock that stands still, and a browser made of function calls."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate

from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director.dashboard._http import Message


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames every few milliseconds."""
    monkeypatch.setattr("director.dashboard._feed.INTERVAL", 0.005)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@dataclass
class Answer:
    """What an ASGI app has sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def frames(self) -> list[dict[str, Any]]:
        """The documents of an event stream."""
        lines = self.text.splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


class Browser:
    """Asks an ASGI app, from this machine unless told otherwise."""

    def __init__(self, app: Any, root_path: str = "", client: tuple[str, int] | None = ("127.0.0.1", 5000)) -> None:
        self.app = app
        self.root_path = root_path
        self.client = client

    def scope(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> dict[str, Any]:
        path, _, query = path.partition("?")
        full = self.root_path + path
        return {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": full,
            "raw_path": full.encode(),
            "root_path": self.root_path,
            "query_string": query.encode(),
            "headers": [
                (key.lower().encode(), value.encode())
                for key, value in ({"host": "localhost:80"} | (headers or {})).items()
            ],
            "client": self.client,
        }

    async def get(self, path: str, method: str = "GET", *, leave_after: int | None = None, **headers: str) -> Answer:
        """The answer; with `leave_after` the browser is gone once it has so many events."""
        answer = Answer()
        gone = asyncio.Event()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {key.decode(): value.decode() for key, value in message["headers"]}
                return
            answer.body += message.get("body", b"")
            if leave_after is not None and answer.body.count(b"data: ") >= leave_after:
                gone.set()

        await self.app(
            self.scope(path, method, {key.replace("_", "-"): value for key, value in headers.items()}), receive, send
        )
        return answer


async def take(frames: AsyncIterator[tuple[int, bytes]], count: int) -> list[dict[str, Any]]:
    """The next frames of a source, as documents."""
    return [json.loads((await anext(frames))[1]) for _ in range(count)]
