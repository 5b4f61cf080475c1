"""What a type checker knows of the public contract. Checked by mypy and pyright, both strict, and never run.

A line with `type: ignore` is a mistake that has to be found: both report an ignore that ignores nothing. It names no
code where there are overloads, of which mypy reports one or another.
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
from director import (
    Device,
    Director,
    DirectorExecutor,
    Job,
    JobState,
    Model,
    Stats,
    Stream,
    SyncDirector,
    discover_devices,
)
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
def all_of(net: Net, images: list[bytes]) -> list[float]: ...
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

    d.submit(on_device, 1)  # type: ignore  # an argument is missing
    d.submit(on_device, "one", 1)  # type: ignore  # in the wrong order
    d.submit(nothing_but_device, 1)  # type: ignore  # one too many
    d.submit(on_device, 1, "one", prio=5)  # type: ignore  # no such option
    d.submit(on_device, 1, "one", priority="high")  # type: ignore
    await d.run(on_net, b"image", model=load)  # type: ignore  # a loader is no Model


async def streams(d: Director, later: AsyncIterator[bytes]) -> None:
    async for found in d.map(on_net, [b"one", b"two"], model=net, window=8, ordered=False):
        assert_type(found, list[float])
    async for found in d.map(on_net, later, model=net):
        assert_type(found, list[float])
    async for either in d.map(on_net, later, model=net, return_exceptions=True):
        assert_type(either, list[float] | BaseException)
    with SyncDirector() as sync:
        for found in sync.map(on_net, [b"one"], model=net):
            assert_type(found, list[float])
        for either in sync.map(on_net, [b"one"], model=net, return_exceptions=True):
            assert_type(either, list[float] | BaseException)
        assert_type(sync.run(on_device, 1, "one"), complex)
    d.map(on_net, [1, 2], model=net)  # type: ignore[arg-type]  # not images


async def generators(d: Director) -> None:
    async for token in d.stream(tokens, "once upon", 9, model=net, buffer=4, on_slow_reader="cancel"):
        assert_type(token, str)
    assert_type(await anext(d.stream(frames, slow_reader_timeout=2)), bytes)
    assert_type(d.stream(frames), Stream[bytes])
    assert_type(d.stream(frames).job, Job[None])
    await d.stream(frames).aclose()
    async with d.stream(frames, when_full="wait") as values:
        assert_type(values, Stream[bytes])

    @d.function(model=net)
    def talk(net: Net, prompt: str) -> Iterator[str]: ...

    async for token in talk.with_options(buffer=4).stream("once upon"):
        assert_type(token, str)
    assert_type(talk.stream("once upon"), Stream[str])
    async for frame in d.function(frames).stream():
        assert_type(frame, bytes)

    d.stream(tokens, "once upon", model=net)  # type: ignore  # an argument is missing
    d.stream(tokens, "once upon", 9, on_slow_reader="drop")  # type: ignore
    d.stream(nothing_but_device)  # type: ignore  # not a generator function
    d.function(on_device).stream(1, "one")  # type: ignore[misc]  # nor this one


async def functions(d: Director) -> None:
    @d.function
    def plain(device: Device, number: int) -> str: ...

    @d.function(model=net, priority=1)
    def with_options(net: Net, image: bytes, scale: float) -> list[float]: ...

    called = d.function(on_device, priority=1)
    assert_type(await plain(1), str)
    assert_type(await plain(number=1), str)
    assert_type(await called(1, "one"), complex)
    assert_type(await called(1, text="one"), complex)
    assert_type(await with_options(b"image", 0.5), list[float])
    assert_type(await with_options(b"image", scale=0.5), list[float])
    assert_type(with_options.submit(b"image", 0.5), Job[list[float]])
    async for text in plain.map(range(3)):
        assert_type(text, str)
    async for answer in plain.map(range(3), return_exceptions=True):
        assert_type(answer, str | BaseException)

    urgent = with_options.with_options(priority=9, deadline=0.5, tenant="a")
    assert_type(await urgent(b"image", 0.5), list[float])
    assert_type(await urgent.submit(b"image", 0.5), list[float])
    with_options.with_options(max_batch_size=3)  # type: ignore[call-arg]  # of functions, not of calls

    @d.function(model=net, max_batch_size=8, max_wait=0.1)
    def detect_all(net: Net, images: list[bytes]) -> list[float]: ...

    assert_type(await detect_all(b"image"), float)
    assert_type(detect_all.submit(b"image"), Job[float])
    assert_type(detect_all.with_options(priority=2).submit(b"image"), Job[float])
    async for score in detect_all.map([b"image"]):
        assert_type(score, float)
    async for score in d.map(detect_all, [b"image"]):
        assert_type(score, float)
    assert_type(await d.run(detect_all, b"image"), float)
    assert_type(await d.function(all_of, max_batch_size=2)(b"image"), float)
    await detect_all("text")  # type: ignore[arg-type]
    await detect_all([b"image"])  # type: ignore[arg-type]  # one item

    @d.function(buffer=4)
    def count(device: Device, n: int, step: int = 1) -> Iterator[int]: ...

    assert_type(count.stream(3, step=2), Stream[int])
    assert_type(count.with_options(on_slow_reader="cancel").stream(n=3), Stream[int])
    assert_type(d.stream(count, 3, priority=2, buffer=8), Stream[int])
    assert_type(count.stream(3).job, Job[None])
    count.with_options(bufer=3)  # type: ignore[call-arg]

    assert_type(await d.run(plain, 1, priority=2), str)
    assert_type(d.submit(called, 1, "one", tenant=None), Job[complex])
    async for text in d.map(plain, range(3), priority=2):
        assert_type(text, str)

    await plain("one")  # type: ignore[arg-type]
    await plain(1, priority=3)  # type: ignore[call-arg]  # an option
    plain.map(["one"])  # type: ignore[list-item]
    await with_options(b"image")  # type: ignore[call-arg]
    d.function(max_batch=3)  # type: ignore[call-overload]


def web(app: FastAPI, d: Director) -> None:
    FastAPI(lifespan=lifespan(d, load=[net], require="any"), responses=PROBLEMS)
    install(app, d, models=[net], request_deadlines=True)

    @app.get("/")
    async def answer(director: DirectorDep) -> float:
        await director.run(nothing_but_device, deadline=time_left())
        return await director.run(on_device, 1, "one")  # type: ignore  # that is complex


async def life(hook: Hook) -> None:
    def note(event: Event) -> None:
        if isinstance(event, JobSucceeded):
            assert_type(event.ran, float | None)

    d = Director("simulated:4", slots={0: 2, "cuda:1": 1}, max_queue=None, hooks=[note, hook], name="d")
    async with d as entered:
        assert_type(entered, Director)
        await d.load(net)
        async with d.lease(model=net, priority=2) as replica:
            assert_type(replica, Net)
        async with d.lease(devices=[0]) as device:
            assert_type(device, Device)
        d.lease(start_within=2.0, memory="1GiB", tenant="a", when_full="refuse", retries=1, backoff=0.5, name="n")
        d.lease(deadline=3)  # type: ignore
    await d.start()
    await d.drain()
    await d.close(timeout=1.0, grace=2.0)
    assert_type(d.stats(), Stats)
    assert_type(d.stats().devices[0].busy_seconds, float)
    assert_type(d.devices, tuple[Device, ...])
    Director([0, "GPU-1234", Device(0, "u", "n", "cpu")])
    Director(simulated_devices(4, speed=2.0, memory=1 << 30))
    Director(simulated_devices(4, memory="6GiB"), memory_limit="90%")
    Director(executor="threads")  # type: ignore[arg-type]


def executor(d: Director) -> Iterator[Any]:
    pool: concurrent.futures.Executor = d.as_executor(model=net)
    assert_type(d.as_executor(), DirectorExecutor)
    assert_type(pool.submit(len, "four"), concurrent.futures.Future[int])
    assert_type(d.as_executor().submit(with_default, d.devices[0], 1, text="x"), concurrent.futures.Future[bytes])
    yield pool


def facts(full: QueueFull, late: JobTimeout) -> None:
    assert_type(discover_devices(), list[Device])
    assert_type(simulated_devices(2), list[SimulatedDevice])
    assert_type(director.current_device(), Device)
    assert_type(director.current_job(), Job[Any])
    assert_type(director.current_job().name, str)
    assert_type(full.retry_after, float | None)
    caught: TimeoutError = late
    del caught
