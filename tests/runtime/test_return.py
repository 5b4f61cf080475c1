"""A device of a fleet that leaves and comes back as the same: a host that was started again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import until

from director import Device, DeviceLost, Director, Health, Model
from director._executors.thread import ThreadExecutor
from director.hooks import LifespanHook
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

HERE, AWAY = simulated_devices(2)


class Fleet(ThreadExecutor):
    """Two devices on threads, of which a test says when they come and go."""

    joined: Callable[[Device], None]
    left: Callable[[Device, str], None]

    def fleet(self) -> Fleet:
        return self

    def gather(self, _spec: Any) -> tuple[Device, ...]:
        return (HERE, AWAY)

    def watch(self, joined: Callable[[Device], None], left: Callable[[Device, str], None]) -> None:
        self.joined, self.left = joined, left

    def disband(self) -> None:
        """They hold nothing."""


def healths(director: Director) -> list[tuple[Device, Health]]:
    return [(each.device, each.health) for each in director.stats().devices]


async def gone(director: Director, fleet: Fleet) -> None:
    fleet.left(AWAY, "its host is down")
    await until(lambda: director.devices == (HERE,))


async def back(director: Director, fleet: Fleet) -> None:
    fleet.joined(AWAY)
    await until(lambda: director.devices == (HERE, AWAY))


@pytest.mark.parametrize("name", [AWAY, AWAY.uuid, AWAY.index], ids=["itself", "uuid", "index"])
async def test_it_is_known_by_its_names_and_counted_once(name: Any) -> None:
    fleet = Fleet()
    async with Director(executor=fleet) as director:
        assert await director.run(str, devices=name) == str(AWAY)
        for _ in range(3):
            await gone(director, fleet)
            assert healths(director) == [(HERE, Health.HEALTHY), (AWAY, Health.QUARANTINED)]
            with pytest.raises(DeviceLost):
                director.submit(str, devices=name)
            await back(director, fleet)
            assert healths(director) == [(HERE, Health.HEALTHY), (AWAY, Health.HEALTHY)]
            assert await director.run(str, devices=name) == str(AWAY)


async def test_a_model_that_may_be_only_there_is_loaded_anew() -> None:
    fleet, loads = Fleet(), []
    model = Model(lambda device: loads.append(device), devices=AWAY.uuid, replicas=1)
    async with Director(executor=fleet) as director:
        await director.run(lambda _: None, model=model)
        await gone(director, fleet)
        await back(director, fleet)
        await director.run(lambda _: None, model=model)
    assert loads == [AWAY, AWAY]


async def test_of_one_that_was_not_taken_in_nobody_hears_when_it_leaves() -> None:
    fleet, reports = Fleet(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    async with Director(executor=fleet) as director:
        fleet.left(simulated_devices(3)[2], "it came while we were closing")
        assert await director.run(str, devices=AWAY) == str(AWAY)
        assert healths(director) == [(HERE, Health.HEALTHY), (AWAY, Health.HEALTHY)]
    assert not reports


class Plain:
    """A lifespan hook without `devices_changed`."""

    wants = ()

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, _event: Any) -> None:
        """It wants no events."""

    def begin(self, _clock: Any, slots: tuple[Device, ...], _unfinished: Any) -> None:
        self.calls.append(("begin", slots))

    def end(self, _at: float) -> None:
        self.calls.append("end")


class Following(Plain):
    def devices_changed(self, slots: tuple[Device, ...]) -> None:
        self.calls.append(("devices_changed", slots))


async def test_lifespan_hooks_are_called_with_the_slots_when_a_device_has_come() -> None:
    new = simulated_devices(3)[2]
    fleet, plain, following = Fleet(), Plain(), Following()
    async with Director(executor=fleet, hooks=[plain, following]) as director:
        fleet.joined(new)
        await until(lambda: director.devices == (HERE, AWAY, new))
    assert isinstance(following, LifespanHook)
    assert plain.calls == [("begin", (HERE, AWAY)), "end"]
    assert following.calls == [("begin", (HERE, AWAY)), ("devices_changed", (HERE, AWAY, new)), "end"]
