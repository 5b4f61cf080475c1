"""What a device may be: several GPUs of one node, a part of something, or a core."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster import work
from director import Director, PlacementError


async def test_a_device_of_two_gpus(executor: Any) -> None:
    both = replace(executor, resources={"GPU": 2})
    async with Director(executor=both) as director:
        assert len({device.node for device in director.devices}) == len(director.devices) == 2
        for device in director.devices:
            _, visible = await director.run(work.where, devices=device)
            assert visible is not None
            assert sorted(visible.split(",")) == ["0", "1"]
    with pytest.raises(PlacementError, match="one slot"):
        await Director(executor=both, slots=2).start()


async def test_devices_that_hold_a_part(executor: Any) -> None:
    async with Director(executor=replace(executor, resources={"solo": 0.5})) as director:
        assert len(director.devices) == len({device.uuid for device in director.devices}) == 2
        processes = [await director.run(work.process_id, devices=device) for device in director.devices]
        assert len(set(processes)) == 2


async def test_slots_that_share_a_gpu(executor: Any) -> None:
    async with Director(executor=replace(executor, resources={"GPU": 1, "solo": 1}), slots=2) as director:
        (device,) = director.devices
        seen = [await job for job in [director.submit(work.where) for _ in range(8)]]
        assert {visible for _, visible in seen} == {str(device.index)}


async def test_cores(executor: Any) -> None:
    async with Director("cpu", executor=executor) as director:
        assert [device.kind for device in director.devices] == ["cpu", "cpu"]
        assert await director.run(work.echo, 1) == 1
