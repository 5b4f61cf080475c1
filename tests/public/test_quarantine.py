"""Devices that lose their workers: no more work for them, what waits goes elsewhere or fails, and a probe decides."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest
from harness.gates import Gate

from director import Call, DeviceLost, Director, Health, HealthRules, RunnerEvents, SlotInfo, WorkerDied
from director.events import DeviceQuarantined, DeviceRestored, Event, JobEnded, JobRetried
from director.testing import TestClock


class Fragile:
    """An executor on the slot's thread whose calls of `die` lose their worker."""

    def runner(self, slot: SlotInfo, _events: RunnerEvents) -> Fragile.Seat:
        return Fragile.Seat(slot)

    class Seat:
        def __init__(self, slot: SlotInfo) -> None:
            self.device = slot.device

        def run(self, call: Call) -> Any:
            if call.items is not None or (call.fn is die and self.device.index in call.args[0]):
                raise WorkerDied(-9, self.device)
            return Context().run(call.fn, self.device, *call.args)

        def close(self) -> None: ...

        def abandon(self, call: Call) -> None: ...

        def abort(self) -> bool:
            return False


def die(device: Any, where: set[int]) -> int:
    """Loses its worker on these devices."""
    return int(device.index)


def index(device: Any) -> int:
    return int(device.index)


class Room:
    """A Director of two fragile devices, its clock and its events."""

    def __init__(self, hook: Any = None, **rules: Any) -> None:
        self.clock = TestClock()
        self.events: list[Event] = []
        self.wrong: list[str | None] = []  # what the next probes find
        self.probed: list[int] = []
        self.director = Director(
            "simulated:2",
            executor=Fragile(),
            clock=self.clock,
            hooks=[hook or self.events.append],
            health=HealthRules(probe=self.probe, **rules),
        )

    def probe(self, device: Any) -> str | None:
        self.probed.append(device.index)
        return self.wrong.pop(0) if self.wrong else None

    def health(self) -> list[Health]:
        return [device.health for device in self.director.stats().devices]

    async def lose(self, device: int, times: int) -> None:
        for _ in range(times):
            with pytest.raises(WorkerDied):
                await self.director.run(die, {0, 1}, devices=device)

    async def until(self, *health: Health) -> None:
        while self.health() != list(health):  # noqa: ASYNC110 - the probe is on a thread
            await asyncio.sleep(0)


GOOD, BAD, TRIED = Health.HEALTHY, Health.QUARANTINED, Health.PROBATION


async def test_workers_lost_in_a_row_close_the_device() -> None:
    room = Room()
    async with room.director as director:
        await room.lose(0, 2)
        assert room.health() == [GOOD, GOOD]
        await room.lose(0, 1)
        assert room.health() == [BAD, GOOD]
        assert "3 jobs in a row" in (director.stats().devices[0].reason or "")
        assert director.healthy
        assert {await director.run(index) for _ in range(6)} == {1}
        [event] = [event for event in room.events if isinstance(event, DeviceQuarantined)]
        assert event.device is director.devices[0]


class Selective:
    """A hook that wants one kind of event."""

    def __init__(self, wanted: type[Event]) -> None:
        self.wants = (wanted,)
        self.seen: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.seen.append(event)


@pytest.mark.parametrize(("wanted", "seen"), [(JobEnded, 3), (DeviceQuarantined, 1), (DeviceRestored, 1)])
async def test_hooks_hear_of_devices_if_they_want_to(wanted: type[Event], seen: int) -> None:
    room = Room(hook=(hook := Selective(wanted)))
    async with room.director:
        await room.lose(0, 3)
        assert room.health() == [BAD, GOOD]
        room.clock.advance(30)
        await room.until(GOOD, GOOD)
    assert len(hook.seen) == seen


async def test_a_success_in_between_starts_the_count_again() -> None:
    room = Room()
    async with room.director as director:
        for _ in range(3):
            await room.lose(0, 2)
            assert await director.run(index, devices=0) == 0
        assert room.health() == [GOOD, GOOD]


async def test_one_job_that_kills_every_worker_counts_once() -> None:
    room = Room()
    async with room.director as director:
        with pytest.raises(WorkerDied):
            await director.run(die, {0, 1}, retries=20)
        assert room.health() == [GOOD, GOOD]


async def test_a_lost_job_is_tried_again_on_another_device() -> None:
    room = Room()
    async with room.director as director:
        for _ in range(4):
            job = director.submit(die, {0}, retries=1)
            assert await job == 1
            assert job.attempts in (1, 2)
        retried = [event for event in room.events if isinstance(event, JobRetried)]
        assert retried
        assert all(event.device is director.devices[0] and isinstance(event.error, WorkerDied) for event in retried)


async def test_what_only_the_closed_device_could_run_fails() -> None:
    room = Room(failures=1)
    async with room.director as director:
        gate, running = Gate(), Gate()
        blocker = director.submit(gate, devices=1)
        losing = director.submit(die, {0}, devices=0)
        runs = director.submit(running, devices=0)  # taken before anybody on the loop knows
        waiting = [director.submit(index, devices=0) for _ in range(3)]
        elsewhere = director.submit(index)
        with pytest.raises(WorkerDied):
            await losing
        for job in waiting:
            with pytest.raises(DeviceLost):
                await job
        running.open()
        await runs  # it ends as if nothing had happened
        with pytest.raises(DeviceLost, match="simulated:0"):
            director.submit(index, devices=0)
        with pytest.raises(DeviceLost):
            await director.run(index, devices=0)
        assert director.stats().rejected == 2
        gate.open()
        await blocker
        assert await elsewhere == 1


async def test_a_probe_that_finds_nothing_brings_it_back() -> None:
    room = Room(failures=1, probation=10)
    async with room.director as director:
        await room.lose(0, 1)
        room.clock.advance(9.9)
        await asyncio.sleep(0)
        assert room.health() == [BAD, GOOD]
        room.clock.advance(0.1)
        await room.until(GOOD, GOOD)
        assert room.probed == [0]
        assert await director.run(index, devices=0) == 0
        assert [type(event) for event in room.events if isinstance(event, (DeviceQuarantined, DeviceRestored))] == [
            DeviceQuarantined,
            DeviceRestored,
        ]


async def test_probes_that_find_something_come_at_ever_longer_intervals() -> None:
    room = Room(failures=1, probation=10, longest=25)
    room.wrong = ["still hot"] * 3
    async with room.director as director:
        await room.lose(0, 1)
        for wait in (10, 20, 25):
            room.clock.advance(wait - 0.1)
            await asyncio.sleep(0)
            before = len(room.probed)
            room.clock.advance(0.1)
            while len(room.probed) == before:  # noqa: ASYNC110 - the probe is on a thread
                await asyncio.sleep(0)
            await room.until(BAD, GOOD)
            assert director.stats().devices[0].reason == "still hot"
        room.clock.advance(25)
        await room.until(GOOD, GOOD)


async def test_with_no_device_left_everything_is_refused_until_one_is_back() -> None:
    room = Room(failures=1, probation=10)
    async with room.director as director:
        await room.lose(0, 1)
        await room.lose(1, 1)
        assert not director.healthy
        for submit in (lambda: director.submit(index), lambda: director.submit(index, priority=1)):
            with pytest.raises(DeviceLost):
                submit()
        room.clock.advance(10)
        await room.until(GOOD, GOOD)
        assert director.healthy
        assert await director.run(index) in (0, 1)


async def test_what_waits_is_served_by_the_device_that_comes_back() -> None:
    room = Room(failures=1, probation=10)
    async with room.director as director:
        await room.lose(0, 1)
        gate = Gate()
        blocker = director.submit(gate)
        await gate.begun()
        waiting = director.submit(index)
        room.clock.advance(10)
        assert await waiting == 0
        gate.open()
        await blocker


async def test_a_director_closes_with_a_device_in_quarantine_or_on_probation() -> None:
    room = Room(failures=1, probation=10)
    async with room.director:
        await room.lose(0, 1)
    room = Room(failures=1, probation=10)
    async with room.director:
        await room.lose(0, 1)
        room.clock.advance(10)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ({"failures": 0}, ValueError),
        ({"failures": 1.5}, TypeError),
        ({"probation": 0}, ValueError),
        ({"longest": "long"}, TypeError),
        ({"probe": 5}, TypeError),
    ],
)
def test_wrong_rules_are_refused(rules: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(rules))):
        HealthRules(**rules)


def test_health_must_be_rules() -> None:
    with pytest.raises(TypeError, match="HealthRules"):
        Director("simulated:1", health={"failures": 3})  # type: ignore[arg-type]


async def test_a_worker_that_takes_many_jobs_along_counts_once() -> None:
    """However many share its last call, and whatever their number is."""
    room = Room()
    async with room.director as director:
        function = director.function(die_together, max_batch_size=8)
        function = function.with_options(devices=0)
        for left in (True, True, False):
            jobs = [function.submit(0) for _ in range(8)]
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert {type(each) for each in outcomes} == {WorkerDied}
            assert all(health is GOOD for health in room.health()) is left, room.health()


async def test_jobs_that_come_back_tell_the_workers_apart() -> None:
    room = Room()
    async with room.director as director:
        for _ in range(5):
            await room.lose(0, 2)
            assert await director.run(index, devices=0) == 0
        assert room.health() == [GOOD, GOOD]


def die_together(device: Any, items: list[int]) -> list[int]:
    return items
