"""The example of the documentation under a real server: 200 clients at once, of whom 30 % leave early."""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.gates import PATIENCE, rested, until

from asgi.wire import Client, Served, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn: pip install gpu-director[demo]"),
]

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CLIENTS, LEAVING = 200, 60


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Made once: the network is trained once. The Director in it is started anew by each server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS_DEVICES", "cpu:2")
        patch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module("digits_server")


@pytest.fixture
def image(example: ModuleType, tmp_path: Path) -> bytes:
    example.draw(tmp_path / "seven.png", 7)
    return (tmp_path / "seven.png").read_bytes()


def form(*images: bytes, field: str = "image") -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--x\r\ncontent-disposition: form-data; name="%s"; filename="a.png"\r\n\r\n%s\r\n' % (field.encode(), image)
        for image in images
    ]
    return b"".join([*parts, b"--x--\r\n"]), {"content_type": "multipart/form-data; boundary=x"}


async def send(site: Served, image: bytes) -> Client:
    content, headers = form(image)
    return await site.ask("POST", "/digits", content, **headers)


async def test_it_reads_a_digit(example: ModuleType, image: bytes) -> None:
    async with served(example.app) as site:
        reply = await (await send(site, image)).reply()
        assert (reply.status, reply.json()["digit"]) == (200, 7)
        assert (await site.get("/readyz")).status == 200
        assert (await (await send(site, b"no image")).reply()).status == 422
        assert (await (await send(site, bytes(1_000_001))).reply()).status == 413


async def test_it_reads_many(example: ModuleType, image: bytes) -> None:
    content, headers = form(*[image] * 5, field="images")
    async with served(example.app) as site:
        reply = await site.post("/digits/many", content, **headers)
        assert reply.status == 200
        assert re.findall(rb'"digit":(\d)', reply.text) == [b"7"] * 5


async def test_it_streams_the_digits_of_a_strip(example: ModuleType, tmp_path: Path) -> None:
    example.draw(tmp_path / "strip.png", 3, 1, 4, 1, 6)
    content, headers = form((tmp_path / "strip.png").read_bytes())
    async with served(example.app) as site:
        reply = await site.post("/strip", content, **headers)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert re.findall(rb'data: {"digit":(\d)', reply.text) == [b"3", b"1", b"4", b"1", b"6"]


async def test_who_leaves_a_stream_leaves_the_device(example: ModuleType, tmp_path: Path) -> None:
    director = example.director
    example.draw(tmp_path / "strip.png", *[7] * 500)
    content, headers = form((tmp_path / "strip.png").read_bytes())
    async with served(example.app) as site:
        client = await site.ask("POST", "/strip", content, **headers)
        await client.reader.readuntil(b"data: ")
        await client.leave()
        await until(lambda: director.stats().queued == director.stats().running == 0)
        await rested(director)
        async with asyncio.timeout(PATIENCE), director.lease(), director.lease():
            pass


async def test_clients_who_leave_while_they_wait_cost_nothing(example: ModuleType, image: bytes) -> None:
    director = example.director
    async with served(example.app) as site:
        async with AsyncExitStack() as taken:
            for _ in range(2):
                await taken.enter_async_context(director.lease())
            before = director.stats()
            clients = await asyncio.gather(*[send(site, image) for _ in range(CLIENTS)])
            await until(lambda: director.stats().queued == CLIENTS)
            for client in clients[:LEAVING]:
                await client.leave()
            await until(lambda: director.stats().queued == CLIENTS - LEAVING)
        replies = await asyncio.gather(*[client.reply() for client in clients[LEAVING:]])
        assert {(reply.status, reply.json()["digit"]) for reply in replies} == {(200, 7)}
        await rested(director)
        after = director.stats()
    assert after.succeeded - before.succeeded == CLIENTS - LEAVING + 2  # and the two leases
    assert after.cancelled - before.cancelled == LEAVING
    calls = sum(each.jobs for each in after.devices) - sum(each.jobs for each in before.devices)
    assert calls == CLIENTS - LEAVING + 2, "nothing was computed for those who left"


async def test_clients_who_leave_at_any_moment_disturb_nobody(example: ModuleType, image: bytes) -> None:
    director, chance = example.director, random.Random(6)
    moments = [chance.uniform(0, 0.2) if n < LEAVING else None for n in range(CLIENTS)]
    chance.shuffle(moments)

    async def come(site: Served, leaves_after: float | None) -> int | None:
        await asyncio.sleep(chance.uniform(0, 0.1))
        client = await send(site, image)
        if leaves_after is None:
            return (await client.reply()).status
        await asyncio.sleep(leaves_after)
        await client.leave()
        return None

    async with served(example.app) as site:
        async with asyncio.timeout(4 * PATIENCE):
            statuses = await asyncio.gather(*[come(site, moment) for moment in moments])
        assert [status for status in statuses if status] == [200] * (CLIENTS - LEAVING)
        await until(lambda: director.stats().queued == director.stats().running == 0)
        await rested(director)
        stats = director.stats()
        assert stats.failed == 0
        assert stats.succeeded + stats.cancelled <= CLIENTS + 2  # and the two loads
        async with asyncio.timeout(PATIENCE), director.lease(), director.lease():
            pass  # every permit is back


def test_the_command_that_the_example_names(image: bytes) -> None:
    """A process of its own, which SIGTERM ends without a word."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "digits_server:app", "--port", "0"]
    environment = {**os.environ, "DIGITS_DEVICES": "cpu:2"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            port = next(int(found[1]) for line in lines if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
            assert asyncio.run(ask(port, image)) == 200
            process.terminate()
            rest = process.stdout.read()
            assert process.wait(4 * PATIENCE) in (0, -signal.SIGTERM)
            assert "Traceback" not in rest
            assert "Finished server process" in rest
        finally:
            process.kill()


async def ask(port: int, image: bytes) -> int:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    content, headers = form(image)
    await client.ask("POST", "/digits", content, **headers)
    status = (await client.reply()).status
    await client.leave()
    return status
