"""What only a real CUDA GPU can show: `python3 noxfile.py -s torch -- tests/gpu` on a machine that has one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from director import Director, Model, WorkerDied, discover_devices

torch = pytest.importorskip("torch", reason="nox -s torch has it")
if not torch.cuda.is_available():
    pytest.skip("these tests need a CUDA GPU, and torch built for it", allow_module_level=True)

from gpu import kernels  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
EXECUTORS = pytest.mark.parametrize("executor", ["thread", "process"])


def test_devices_are_those_of_torch() -> None:
    devices = discover_devices()
    assert len(devices) == torch.cuda.device_count()
    for device in devices:
        properties = torch.cuda.get_device_properties(str(device))
        assert device.name == properties.name
        assert str(properties.uuid) in device.uuid


@EXECUTORS
async def test_a_job_that_names_no_gpu_is_on_its_own(executor: str) -> None:
    async with Director("gpu", executor=executor) as director:  # type: ignore[arg-type]
        for device in director.devices:
            # A child sees one GPU only, which is its first.
            expected = str(device) if executor == "thread" else "cuda:0"
            assert await director.run(kernels.home, devices=[device]) == expected


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_job_is_over_when_the_gpu_is(slots: int) -> None:
    async with Director("gpu", slots=slots) as director:
        await director.run(kernels.spin)  # CUDA's start is over
        job = director.submit(kernels.spin)
        done = await job
        assert done.query()
        assert job.ran is not None
        assert job.ran > 0.1


async def test_slots_of_one_gpu_have_streams_of_their_own() -> None:
    async with Director([0], slots=2) as director:
        first, second = await asyncio.gather(director.run(kernels.stream), director.run(kernels.stream))
    assert first != second


@EXECUTORS
async def test_a_batch_too_large_for_the_memory_is_halved(executor: str) -> None:
    async with Director([0], executor=executor) as director:  # type: ignore[arg-type]
        thirds = director.function(kernels.thirds, max_batch_size=4)
        assert await asyncio.gather(*map(thirds, range(8))) == list(range(8))
        assert director.healthy


async def test_a_broken_context_goes_with_its_process() -> None:
    async with Director([0], executor="process") as director:
        with pytest.raises((RuntimeError, WorkerDied)):
            await director.run(kernels.break_context)
        assert await director.run(kernels.add_up, 1_000, retries=1) == 1_000


BROKEN = """
import asyncio
from director import DeviceLost, Director
from gpu import kernels

async def main():
    async with Director([0]) as director:
        for fn, *args in ((kernels.break_context,), (kernels.add_up, 1_000)):
            try:
                await director.run(fn, *args)
            except (RuntimeError, DeviceLost) as error:
                print(type(error).__name__)

asyncio.run(main())
"""


def test_a_broken_context_loses_the_device_where_jobs_run_on_threads() -> None:
    """In a process of its own, which is of no use afterwards."""
    tests = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN], cwd=tests, env=None, capture_output=True, text=True, timeout=200
    )
    assert ended.stdout.splitlines()[1:] == ["DeviceLost"], ended.stderr


async def test_a_model_is_on_its_device() -> None:
    model = Model(lambda device: torch.nn.Linear(4, 4).to(str(device)))
    async with Director("gpu") as director:
        await director.load(model)
        for device in director.devices:
            job = director.submit(lambda net: str(net.weight.device), model=model, devices=[device])
            assert await job == str(device)
