"""Servers of old and new code: the new one takes each device over when the old one has drained it."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness import served

from director import Director, JobState, Model
from director._client import encoding
from director._devices.health.rules import Health
from director._ipc.sharing.lock_file import Folder
from director._scheduler.slots import make_device_slots
from director._server.device_turns import DeviceTurns
from director.testing import simulated_devices
from server.conftest import PATIENCE, server_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from director._scheduler.slots import DeviceSlots
    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs


async def within(waited: Awaitable[Any]) -> Any:
    """What comes, and not a test that hangs."""
    return await asyncio.wait_for(waited, PATIENCE)


@pytest.fixture
def deploy(make: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Director]]:
    """Opens Directors whose code has changed since the one before."""
    numbers = iter(range(10))

    async def deploy(*functions: Any, **options: Any) -> Director:
        monkeypatch.setitem(encoding._sources, "harness.served", b"version %d" % next(numbers))
        director = await make(**options)
        backend: Any = director._runtime
        for function in functions:  # named now, with this version
            backend._encoder._known(function, None, "harness.served")
        return director

    return deploy


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_the_new_server_waits_for_the_calls_of_the_old_one_and_then_for_its_memory(
    deploy: Callable[..., Awaitable[Director]], hold: Callable[[], Holder], tmp_path: Path, executor: str
) -> None:
    old = await deploy(served.hold, served.replica, served.cache_memory, executor=executor)
    log, holder = tmp_path / "log", hold()
    models = [
        Model(partial(served.load_noting, str(log), n), unload=partial(served.unload_noting, str(log))) for n in (1, 2)
    ]
    await within(old.run(served.replica, model=models[0]))
    await within(old.run(served.cache_memory, str(log)))
    freed = ["freed"] if executor == "thread" else []  # a child ends, and with it its memory is free
    held = old.submit(served.hold, holder.path)
    await within(holder.begun())

    new = await deploy(executor=executor)
    job = new.submit(served.replica, model=models[1])
    await until(lambda: server_of(new) not in (-1, server_of(old)))
    await until(lambda: new.stats().queued == 1)
    assert "has it until its jobs there have ended" in (await within(new.explain(job))).text
    assert job.state is JobState.QUEUED
    holder.let_go()

    assert (await within(job))["process"] != (await within(held))
    assert log.read_text().splitlines() == ["load 1", "unload 1", *freed, "load 2"]
    # The old one serves its applications on.
    assert (await within(old.run(served.replica, model=models[0])))["number"] == 1
    assert log.read_text().splitlines()[-2:] == ["unload 2", "load 1"]


async def test_a_call_that_hangs_keeps_one_device_only(
    deploy: Callable[..., Awaitable[Director]], hold: Callable[[], Holder]
) -> None:
    old = await deploy(served.hold, devices="simulated:2")
    holder = hold()
    held = old.submit(served.hold, holder.path, devices="simulated:0")
    await within(holder.begun())

    new = await deploy(devices="simulated:2")
    assert [await within(new.run(served.device)) for _ in range(3)] == ["simulated:1"] * 3
    job = new.submit(served.device, devices="simulated:0")
    assert "simulated:0: a server process with other code" in (await within(new.explain(job))).text
    assert new.healthy

    holder.let_go()
    assert await within(job) == "simulated:0"
    await within(held)


async def test_a_device_of_an_old_server_that_is_killed_is_taken_at_once(
    deploy: Callable[..., Awaitable[Director]], hold: Callable[[], Holder]
) -> None:
    old = await deploy(served.hold)
    held = old.submit(served.hold, hold().path)
    await until(lambda: held.state is JobState.RUNNING)
    new = await deploy()
    job = new.submit(served.process)
    await until(lambda: server_of(new) not in (-1, server_of(old)))
    await until(lambda: new.stats().queued == 1)

    os.kill(server_of(old), signal.SIGKILL)

    assert await within(job) == server_of(new)
    await asyncio.gather(held, return_exceptions=True)


# ---- the turns themselves; two in one process exclude each other as those of two do


class Lender:
    """Stands for a Director."""

    def __init__(self) -> None:
        self.lent: set[DeviceSlots] = set()
        self.waiting = False
        self.drained = asyncio.Event()
        self.drained.set()

    async def lend(self, place: DeviceSlots) -> None:
        """As the runtime."""
        self.lent.add(place)
        await self.drained.wait()

    def take_back(self, place: DeviceSlots) -> None:
        """The same."""
        self.lent.remove(place)

    def has_waiting(self, _place: DeviceSlots) -> bool:
        """The same."""
        return self.waiting


class Server:
    """The turns of one server."""

    def __init__(self, home: Path, seconds: float) -> None:
        self.lender = Lender()
        self.places = make_device_slots(tuple(simulated_devices(2)), [1, 1])
        self.turns = DeviceTurns(Folder(home), self.places, self.lender, seconds)

    @property
    def devices(self) -> int:
        """How many it has."""
        return len(self.places) - len(self.lender.lent)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Starts servers, of which only the turns are there."""
    started = []

    async def start(seconds: float = PATIENCE, *, has_work: bool = False) -> Server:
        server = Server(tmp_path, seconds)
        server.lender.waiting = has_work
        started.append(server)
        await server.turns.begin()
        return server

    yield start
    for server in started:
        server.turns.close()
        for turn in server.turns._turns:
            turn.lock._slot.close()
            turn.lock._line.close()
    await asyncio.sleep(0)


async def test_a_server_alone_has_all_devices_and_one_that_rests_gives_them(
    start: Callable[..., Awaitable[Server]],
) -> None:
    one = await start()
    assert (one.devices, one.turns.is_alone) == (2, True)

    two = await start()
    await until(lambda: (one.devices, two.devices) == (0, 2))

    one.turns.note_work()
    await until(lambda: (one.devices, two.devices) == (2, 0))


async def test_a_server_with_work_keeps_its_devices_until_its_work_or_its_turn_is_over(
    start: Callable[..., Awaitable[Server]],
) -> None:
    one, two = await start(has_work=True), await start()
    await until(lambda: all(turn.timer is not None for turn in one.turns._turns))
    one.turns.note_end()
    assert (one.devices, two.devices) == (2, 0)

    one.lender.waiting = False
    one.turns.note_end()
    await until(lambda: (one.devices, two.devices) == (0, 2))


async def test_a_turn_ends_though_work_waits(start: Callable[..., Awaitable[Server]]) -> None:
    one, two = await start(0.01, has_work=True), await start(has_work=True)
    await until(lambda: (one.devices, two.devices) == (0, 2))

    two.lender.waiting = False
    two.turns.note_end()
    await until(lambda: (one.devices, two.devices) == (2, 0))  # it has asked for them again


async def test_a_device_that_does_not_come_is_told(
    start: Callable[..., Awaitable[Server]], caplog: pytest.LogCaptureFixture
) -> None:
    one = await start()
    one.lender.drained.clear()
    two = await start(0.01)
    async with Director("simulated:2") as director:
        stats = director.stats()
        assert one.turns.tell(stats) is stats
        await until(lambda: two.turns.tell(stats) is not stats)

        for device in two.turns.tell(stats).devices:
            assert device.health is Health.QUARANTINED
            assert "another server process has had it for" in str(device.reason)
    await until(lambda: caplog.text.count("its jobs there do not end") == 2)
    one.lender.drained.set()
    await until(lambda: two.devices == 2)
