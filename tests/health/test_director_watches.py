"""A whole Director over pynvml and a driver without hardware: what the watch hears reaches the jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from director import DeviceLost, Director, Health, HealthRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from health.conftest import Driver

RULES = HealthRules(interval=0.02, probation=0.05, probe=lambda device: None)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the threads of the watch do on their own."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a thread's own state has no event
            await asyncio.sleep(0.002)


def health(director: Director) -> list[Health]:
    return [device.health for device in director.stats().devices]


def index(device: Any) -> int:
    return int(device.index)


async def test_a_lost_gpu_gets_no_work_until_it_is_back(driver: Driver) -> None:
    gpus = driver.gpus(2)
    async with Director(gpus, health=RULES) as director:
        assert {await director.run(index) for _ in range(4)} == {0, 1}
        driver.set(1, fail="memory=15")
        await until(lambda: health(director) != [Health.HEALTHY, Health.HEALTHY])
        driver.set(1, fail="")
        await until(lambda: health(director) == [Health.HEALTHY, Health.HEALTHY])
        assert await director.run(index, devices=1) == 1


async def test_a_fatal_xid_takes_the_waiting_work_elsewhere(driver: Driver) -> None:
    gpus = driver.gpus(2)
    async with Director(gpus, health=HealthRules(interval=0.02, probation=1e6)) as director:
        await until(lambda: driver.xid(1, 79))  # somebody must listen first
        await until(lambda: health(director) == [Health.HEALTHY, Health.QUARANTINED])
        assert "XID 79" in (director.stats().devices[1].reason or "")
        assert {await director.run(index) for _ in range(4)} == {0}
        with pytest.raises(DeviceLost):
            await director.run(index, devices=1)
        assert director.healthy


async def test_a_gpu_that_wears_out_works_on_with_a_warning(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    [gpu] = driver.gpus(1)
    async with Director([gpu], health=HealthRules(interval=0.02)) as director:
        await until(lambda: driver.xid(0, 999))  # of which nobody has heard
        await until(lambda: "degraded" in caplog.text)
        assert await director.run(index) == 0
