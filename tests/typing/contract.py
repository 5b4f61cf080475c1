"""What a type checker knows of the public contract. Checked by mypy, never run.

A line with `type: ignore[...]` is a mistake that has to be found: mypy reports an ignore that ignores nothing.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Generator, Iterator
from functools import partial
from typing import Any, assert_type

from fastapi import FastAPI

import director
from director import Device, Director, Function, Job, JobState, Model, Stats, discover_devices
from director.asgi import time_left
from director.errors import JobTimeout, QueueFull
from director.events import Event, Hook, JobSucceeded
from director.fastapi import PROBLEMS, DirectorDep, install, lifespan
from director.testing import SimulatedDevice, simulated_devices


class Net:
    def detect(self, image: bytes) -> list[float]: ...


def load(device: Device) -> Net: ...
def on_device(device: Device, number: int, text: str) -> complex: ...
def on_net(net: Net, image: bytes) -> list[float]: ...
def nothing_but_device(device: Device) -> None: ...
def tokens(net: Net, prompt: str, most: int) -> Iterator[str]: ...
def frames(device: Device) -> Generator[bytes, None, int]: ...
def with_default(device: Device, number: int, text: str = "") -> bytes: ...


net = Model(load)
assert_type(net, Model[Net])


async def jobs(d: Director) -> None:
    job = d.submit(on_device, 1, "one", priority=5, deadline=0.5, name="first")
    assert_type(job, Job[complex])
    assert_type(await job, complex)
    assert_type(job.result(), complex)
    assert_type(job.state, JobState)
    assert_type(job.device, Device | None)
    assert_type(job.waited, float | None)
    assert_type(job.cancel(), bool)
    assert_type(await d.run(on_device, 1, "one", timeout=2), complex)
    assert_type(await d.run(on_net, b"image", model=net), list[float])
    assert_type(await d.run(Net.detect, b"image", model=net, devices=[0, "cuda:1"]), list[float])
    assert_type(await d.run(partial(with_default, text="t"), 1), bytes)
    assert_type(await d.run(lambda device: 1), int)
    await d.run(nothing_but_device)
    await asyncio.gather(d.submit(on_device, 1, "one"), d.submit(nothing_but_device))

    d.submit(on_device, 1)  # type: ignore[arg-type]  # an argument is missing
    d.submit(on_device, "one", 1)  # type: ignore[arg-type]  # in the wrong order
    d.submit(nothing_but_device, 1)  # type: ignore[arg-type]  # one too many
    d.submit(on_device, 1, "one", prio=5)  # type: ignore[call-arg]  # no such option
    d.submit(on_device, 1, "one", priority="high")  # type: ignore[arg-type]
    await d.run(on_net, b"image", model=load)  # type: ignore[arg-type]  # a loader is no Model


async def streams(d: Director, later: AsyncIterator[bytes]) -> None:
    async for found in d.map(on_net, [b"one", b"two"], model=net, window=8, ordered=False):
        assert_type(found, list[float])
    async for found in d.map(on_net, later, model=net):
        assert_type(found, list[float])
    d.map(on_net, [1, 2], model=net)  # type: ignore[arg-type]  # not images


async def generators(d: Director) -> None:
    async for token in d.stream(tokens, "once upon", 9, model=net, buffer=4, on_slow_reader="cancel"):
        assert_type(token, str)
    assert_type(await anext(d.stream(frames, slow_reader_timeout=2)), bytes)
    await d.stream(frames).aclose()

    @d.function(model=net)
    def talk(net: Net, prompt: str) -> Iterator[str]: ...

    async for token in talk.stream("once upon", buffer=4):
        assert_type(token, str)
    async for frame in d.function(frames).stream():
        assert_type(frame, bytes)

    d.stream(tokens, "once upon", model=net)  # type: ignore[arg-type]  # an argument is missing
    d.stream(tokens, "once upon", 9, on_slow_reader="drop")  # type: ignore[arg-type]
    d.stream(nothing_but_device)  # type: ignore[arg-type]  # not a generator function
    d.function(on_device).stream(1, "one")  # type: ignore[misc]  # nor this one


async def functions(d: Director) -> None:
    @d.function
    def plain(device: Device, number: int) -> str: ...

    @d.function(model=net, priority=1)
    def with_options(net: Net, image: bytes, scale: float) -> list[float]: ...

    called = d.function(on_device, priority=1)
    assert_type(plain, Function[int, str])
    assert_type(called, Function[int, str, complex])
    assert_type(await plain(1), str)
    assert_type(await with_options(b"image", 0.5), list[float])
    assert_type(with_options.submit(b"image", 0.5), Job[list[float]])
    async for text in plain.map(range(3)):
        assert_type(text, str)

    urgent = with_options.with_options(priority=9, deadline=0.5, tenant="a")
    assert_type(await urgent(b"image", 0.5), list[float])
    assert_type(await urgent.submit(b"image", 0.5), list[float])
    with_options.with_options(max_batch_size=3)  # type: ignore[call-arg]  # of functions, not of calls

    await plain("one")  # type: ignore[arg-type]
    await with_options(b"image")  # type: ignore[call-arg]
    d.function(max_batch=3)  # type: ignore[call-overload]


def web(app: FastAPI, d: Director) -> None:
    FastAPI(lifespan=lifespan(d, load=[net]), responses=PROBLEMS)
    install(app, d, models=[net], request_deadlines=True)

    @app.get("/")
    async def answer(director: DirectorDep) -> float:
        await director.run(nothing_but_device, deadline=time_left())
        return await director.run(on_device, 1, "one")  # type: ignore[arg-type]  # that is complex


async def life(hook: Hook) -> None:
    def note(event: Event) -> None:
        if isinstance(event, JobSucceeded):
            assert_type(event.ran, float | None)

    d = Director("simulated:4", slots={0: 2, "cuda:1": 1}, max_queue=None, hooks=[note, hook], name="d")
    async with d as entered:
        assert_type(entered, Director)
        await d.load(net)
        async with d.lease(model=net):
            pass
    await d.start()
    await d.drain()
    await d.close(timeout=1.0)
    assert_type(d.stats(), Stats)
    assert_type(d.stats().devices[0].busy_seconds, float)
    assert_type(d.devices, tuple[Device, ...])
    Director([0, "GPU-1234", Device(0, "u", "n", "cpu")])
    Director(simulated_devices(4, speed=2.0, memory=1 << 30))
    Director(executor="threads")  # type: ignore[arg-type]


def executor(d: Director) -> Iterator[Any]:
    pool: concurrent.futures.Executor = d.as_executor(model=net)
    assert_type(pool.submit(len, "four"), concurrent.futures.Future[int])
    yield pool


def facts(full: QueueFull, late: JobTimeout) -> None:
    assert_type(discover_devices(), list[Device])
    assert_type(simulated_devices(2), list[SimulatedDevice])
    assert_type(director.current_device(), Device)
    assert_type(director.current_job().name, str)
    assert_type(full.retry_after, float | None)
    caught: TimeoutError = late
    del caught
