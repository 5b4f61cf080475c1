"""What a websocket hears of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from director import Director, QueueFull
from director.errors import JobTimeout, PlacementError
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from director.errors import DirectorError


def sockets(error: DirectorError) -> FastAPI:
    """Two endpoints, which fail before and after they have accepted."""
    director = Director("simulated:1")
    app = FastAPI(lifespan=lifespan(director))
    install(app, director)

    @app.websocket("/early")
    async def early(_websocket: WebSocket) -> None:
        raise error

    @app.websocket("/late")
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        raise error

    @app.websocket("/closed")
    async def closed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000, "goodbye")
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (QueueFull(8, 9, 2.1), 1013, "queue-full"),
        (JobTimeout("running"), 1011, "timeout"),
        (PlacementError("nowhere"), 1011, "placement"),
    ],
)
def test_a_websocket_is_closed_with_what_went_wrong(error: DirectorError, code: int, kind: str) -> None:
    with TestClient(sockets(error)) as client, client.websocket_connect("/late") as websocket:
        assert websocket.receive() == {"type": "websocket.close", "code": code, "reason": kind}


def test_a_websocket_that_was_not_accepted_is_answered_as_a_request() -> None:
    with (
        TestClient(sockets(QueueFull(8, 9, 2.1))) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/early"),
    ):
        pass
    assert (denied.value.status_code, denied.value.headers["retry-after"]) == (503, "3")
    assert denied.value.json()["kind"] == "queue-full"


def test_a_websocket_that_was_closed_is_left_alone() -> None:
    with TestClient(sockets(QueueFull(8, 9, 2.1))) as client, client.websocket_connect("/closed") as websocket:
        assert websocket.receive() == {"type": "websocket.close", "code": 4000, "reason": "goodbye"}
