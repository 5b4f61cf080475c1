"""A whole Director over pynvml and a driver without hardware: what the watch hears reaches the jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from director import DeviceLost, Director, Health, HealthRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from devices.health.conftest import Driver

pytestmark = pytest.mark.programs

RULES = HealthRules(interval=0.02, probation=0.05, probe=lambda device: None)

EITHER = pytest.mark.parametrize("executor", ["thread", "process"])


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the threads of the watch do on their own."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a thread's own state has no event
            await asyncio.sleep(0.002)


def health(director: Director) -> list[Health]:
    return [device.health for device in director.stats().devices]


def uuid(device: Any) -> str:
    """Which it is; a child knows its own GPU as the first."""
    return str(device.uuid)


@EITHER
async def test_a_lost_gpu_gets_no_work_until_it_is_back(driver: Driver, executor: Any) -> None:
    gpus = driver.gpus(2)
    async with Director(gpus, health=RULES, executor=executor) as director:
        assert {await director.run(uuid) for _ in range(4)} == {gpu.uuid for gpu in gpus}
        driver.set(1, fail="memory=15")
        await until(lambda: health(director) != [Health.HEALTHY, Health.HEALTHY])
        driver.set(1, fail="")
        await until(lambda: health(director) == [Health.HEALTHY, Health.HEALTHY])
        assert await director.run(uuid, devices=1) == gpus[1].uuid


@EITHER
async def test_a_fatal_xid_takes_the_waiting_work_elsewhere(driver: Driver, executor: Any) -> None:
    gpus = driver.gpus(2)
    async with Director(gpus, health=HealthRules(interval=0.02, probation=1e6), executor=executor) as director:
        await until(lambda: driver.xid(1, 79))  # somebody must listen first
        await until(lambda: health(director) == [Health.HEALTHY, Health.QUARANTINED])
        assert "XID 79" in (director.stats().devices[1].reason or "")
        assert {await director.run(uuid) for _ in range(4)} == {gpus[0].uuid}
        with pytest.raises(DeviceLost):
            await director.run(uuid, devices=1)
        assert director.healthy


@EITHER
async def test_a_gpu_that_wears_out_works_on_with_a_warning(
    driver: Driver, caplog: pytest.LogCaptureFixture, executor: Any
) -> None:
    [gpu] = driver.gpus(1)
    async with Director([gpu], health=HealthRules(interval=0.02), executor=executor) as director:
        await until(lambda: driver.xid(0, 999))  # of which nobody has heard
        await until(lambda: "degraded" in caplog.text)
        assert await director.run(uuid) == gpu.uuid
