"""A system that refuses: the n-th thread, task, descriptor or process can't be had, for every n."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Director, DirectorState, RunnerEvents, SlotInfo
from director._executors.process.executor import ProcessExecutor
from director._executors.thread import ThreadExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.programs

PATIENCE = 20.0
WHAT = {
    "thread": (threading.Thread, "start", RuntimeError("can't start new thread")),
    "memory": (threading.Thread, "start", MemoryError()),
    "eventfd": (os, "eventfd", OSError(24, "Too many open files")),
    "process": (subprocess, "Popen", BlockingIOError(11, "Resource temporarily unavailable")),
}


class Refusal:
    """Refuses one call of many.

    Args:
        number: Of that call, from 1.
    """

    def __init__(self, number: int, call: Callable[..., Any], error: Exception) -> None:
        self.number, self.call, self.error = number, call, error
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self.number:
            raise type(self.error)(*self.error.args)
        return self.call(*args, **options)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def echo(_device: Any, value: int) -> int:
    return value


def count(_device: Any) -> Iterator[int]:
    yield from range(3)


async def use(director: Director) -> None:
    """Start it, use it, close it: it works in spite of one refusal, or its start says what was refused."""
    async with asyncio.timeout(PATIENCE):
        await director.start()
        try:
            assert await asyncio.gather(*(director.run(echo, i) for i in range(6))) == list(range(6))
            assert [value async for value in director.stream(count)] == [0, 1, 2]
            async with director.lease():
                pass
            assert (director.state, director.stats().failed) == (DirectorState.OPEN, 0)
        finally:
            await director.close()


@pytest.mark.parametrize(
    ("what", "executor"),
    [
        ("thread", "thread"),
        ("memory", "thread"),
        ("eventfd", "thread"),
        ("process", "process"),
    ],
)
async def test_whatever_is_refused_once(monkeypatch: pytest.MonkeyPatch, what: str, executor: Any) -> None:
    owner, name, error = WHAT[what]
    call = getattr(owner, name)
    before = descriptors()
    threads = set(threading.enumerate())
    for number in range(1, 100):
        refusal = Refusal(number, call, error)
        director = Director("simulated:2" if executor == "thread" else "simulated:1", executor=executor)
        with monkeypatch.context() as patch:
            # A function, so that it is bound where it is a method.
            patch.setattr(owner, name, lambda *args, refusal=refusal, **options: refusal(*args, **options))
            try:
                await use(director)
            except type(error) as raised:
                assert raised.args == error.args  # noqa: PT017
                assert director.state is DirectorState.NEW
                patch.undo()
                await use(director)
        if refusal.calls < number:
            break
    assert number > 1, "nothing of this kind was ever called"
    del director
    assert descriptors() <= before
    assert not [thread for thread in threading.enumerate() if thread not in threads and "director:" in thread.name]


class Broken:
    """An executor whose n-th runner can't be made."""

    def __init__(self, inner: Any, number: int) -> None:
        self.inner, self.left = inner, number

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> Any:
        self.left -= 1
        if not self.left:
            raise OSError(24, "Too many open files")
        return self.inner.runner(slot, events)


@pytest.mark.parametrize("inner", [ThreadExecutor, ProcessExecutor])
async def test_a_start_that_fails_in_the_middle_leaves_nothing(inner: type[Any]) -> None:
    loop: Any = asyncio.get_running_loop()
    before, readers = descriptors(), len(loop._selector.get_map())
    for number in range(1, 5):
        director = Director("simulated:4", executor=Broken(inner(), number))
        with pytest.raises(OSError, match="Too many open files"):
            await director.start()
        assert director.state is DirectorState.NEW
        assert director.devices == ()
        async with director:
            pass
    assert len(loop._selector.get_map()) == readers
    del director
    assert descriptors() <= before


async def test_a_task_factory_that_raises_fails_the_start() -> None:
    loop = asyncio.get_running_loop()

    def refuse(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    director = Director("simulated:2")
    before = descriptors()
    loop.set_task_factory(refuse)
    starting = director.start()
    with pytest.raises(ZeroDivisionError):
        await starting
    loop.set_task_factory(None)
    assert director.state is DirectorState.NEW
    assert descriptors() <= before
    await use(director)


class Fleet(ThreadExecutor):
    """A fleet that can't be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses, self.disbanded = True, 0

    def fleet(self) -> Fleet:
        return self

    def gather(self, _spec: Any) -> Any:
        from director.testing import simulated_devices

        return tuple(simulated_devices(2))

    def watch(self, _joined: Any, _left: Any) -> None:
        if self.refuses:
            raise OSError(11, "no")

    def disband(self) -> None:
        self.disbanded += 1


async def test_a_start_that_fails_at_its_last_step() -> None:
    fleet = Fleet()
    director = Director(executor=fleet)
    with pytest.raises(OSError, match="no"):
        await director.start()
    assert (director.state, fleet.disbanded) == (DirectorState.NEW, 1)
    fleet.refuses = False
    await use(director)
    assert fleet.disbanded == 2
