"""What a device may be: several GPUs of one node, a part of something, or a core."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome

from director import Director, PlacementError, WorkerDied
from executors.ray import work
from executors.ray.test_death import runs

if TYPE_CHECKING:
    from pathlib import Path


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


async def test_a_device_is_the_gpu_that_ray_has_given(executor: Any) -> None:
    """Another program holds the node's first GPU, so the first device of the Director is the second one."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    first = placement_group([{"GPU": 1, "solo": 0.25}])  # "solo": on the head
    try:
        ray.get(first.ready(), timeout=30)
        async with Director(executor=replace(executor, resources={"GPU": 1, "solo": 0.75})) as director:
            (device,) = director.devices
            assert (device.index, device.uuid[-2:]) == (1, "-1")
            assert await director.run(work.where) == (device, "1")
    finally:
        remove_placement_group(first)


async def test_an_actor_that_has_another_gpu_makes_no_call(
    solo: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Director(executor=replace(solo, resources={"GPU": 1, "solo": 1}, start_timeout=15)) as director:
        held: Any = director._runtime
        (reservation,) = held.open_devices.fleet._reservations.values()
        right = reservation._expected
        assert right.accelerators == (str(director.devices[0].index),)
        reservation._expected = right._replace(accelerators=("7",))  # as if Ray had given a successor another one
        os.kill(await director.run(work.process_id), signal.SIGKILL)
        error = await outcome(director.submit(work.sign, str(tmp_path), 1, 0.0))
        assert isinstance(error, WorkerDied)
        assert "so it makes no call" in caplog.text
        assert runs(tmp_path) == {}
        reservation._expected = right
        assert await director.run(work.sign, str(tmp_path), 2, 0.0) == 2
        assert runs(tmp_path) == {2: 1}
