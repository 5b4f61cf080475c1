"""The page's recipe for Ray Serve, as it stands there; where Serve can be imported."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Model
from executors.ray import work
from executors.ray.conftest import SLOW
from executors.ray.test_death import later

if TYPE_CHECKING:
    from collections.abc import Iterator

serve: Any = pytest.importorskip("ray.serve", exc_type=ImportError, reason="needs ray[serve]")
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "ray.md"


@pytest.fixture
def port(executor: Any) -> Iterator[int]:
    """Where Serve listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()


def recipe() -> Any:
    """The application of the page, with a model of ours."""
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "serve." in block)
    names: dict[str, Any] = {"__name__": "__main__", "detect": work.answer, "detector": Model(work.load)}
    exec(block, names)
    return names["app"]


def post(port: int, body: bytes) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=body, timeout=30) as response:
        return bytes(response.read())


async def test_the_recipe(port: int) -> None:
    import ray

    await asyncio.to_thread(serve.run, recipe(), name="front")
    answers = await asyncio.gather(*[asyncio.to_thread(post, port, str(number).encode()) for number in range(8)])
    assert sorted(answers) == [str(number).encode() for number in range(8)]
    assert ray.available_resources().get("GPU", 0) == 0
    _kill_replica()
    await later(lambda: _answers(port), SLOW / 2)  # another replica takes the same GPUs
    await asyncio.to_thread(serve.delete, "front")
    await later(lambda: ray.available_resources().get("GPU") == 4)


def _kill_replica() -> None:
    import ray
    from ray.util import list_named_actors

    (name,) = (each["name"] for each in list_named_actors(all_namespaces=True) if "Front" in each["name"])
    ray.kill(ray.get_actor(name, namespace="serve"))


def _answers(port: int) -> bool:
    try:
        return post(port, b"again") == b"again"
    except OSError:
        return False
