"""`Director.healthy`: some slot can compute."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, turns, until

from director import Director

if TYPE_CHECKING:
    from director.testing import TestClock


def held(director: Director) -> list[tuple[int, int]]:
    """Of each device the slots that are busy, and those of them that are abandoned."""
    return [(device.busy, device.abandoned) for device in director.stats().devices]


@pytest.mark.parametrize("way", ["timed out", "caller gone", "cancelled"])
async def test_not_while_every_slot_is_held_by_a_call_whose_job_has_ended(
    gate: Gate, clock: TestClock, way: str
) -> None:
    async with Director("simulated:2", clock=clock) as director:
        jobs = [director.submit(gate, timeout=5) for _ in range(2)]
        await gate.begun(2)
        assert director.healthy
        if way == "timed out":
            clock.advance(5)
            await asyncio.gather(*jobs, return_exceptions=True)
        elif way == "cancelled":
            jobs[0].cancel()
            assert (director.healthy, sorted(held(director))) == (True, [(1, 0), (1, 1)])
            jobs[1].cancel()
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*jobs), 0.001)
        assert (director.healthy, held(director)) == (False, [(1, 1), (1, 1)])
        assert director.stats().running == 0
        gate.let(1)
        await until(lambda: director.healthy)
        gate.open()
    assert not director.healthy


async def test_a_slot_whose_caller_waits_is_only_busy(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate)
        await gate.begun()
        assert (director.healthy, held(director)) == (True, [(1, 0)])
        gate.open()
        await job


async def test_a_batch_of_which_one_caller_waits_is_wanted(gate: Gate) -> None:
    def double(_device: Any, items: list[int]) -> list[int]:
        gate(None)
        return [2 * item for item in items]

    async with Director("simulated:1") as director:
        first = director.submit(gate)
        await gate.begun()
        function = director.function(double, max_batch_size=2)
        jobs = [function.submit(n) for n in range(2)]
        gate.let(1)
        await first
        await gate.begun()
        jobs[0].cancel()
        assert (director.healthy, held(director)) == (True, [(1, 0)])
        jobs[1].cancel()
        assert (director.healthy, held(director)) == (False, [(1, 1)])
        gate.open()


async def test_a_job_that_never_began_holds_nothing(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        running = director.submit(gate)
        await gate.begun()
        director.submit(gate).cancel()
        await turns()
        assert (director.healthy, held(director)) == (True, [(1, 0)])
        gate.open()
        await running


async def test_a_device_that_is_out_of_service_does_not_count(gate: Gate) -> None:
    """One device is in quarantine, and the only slot of the other is stuck."""

    def break_context(_device: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async with Director("simulated:2") as director:
        with pytest.raises(RuntimeError, match="illegal"):
            await director.run(break_context, devices=[0])
        job = director.submit(gate, devices=[1])
        await gate.begun()
        assert director.healthy
        job.cancel()
        assert not director.healthy
        gate.open()
        await until(lambda: director.healthy)
