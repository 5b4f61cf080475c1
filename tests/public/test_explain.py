"""`await director.explain(job)`: what a waiting job waits for, with the numbers; and what `stats` says of memory."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, rested, until

from director import Device, Director, DirectorClosed, Explanation, MemoryStats, Model
from director.events import ModelEvicted
from director.testing import simulated_devices

GIB = 2**30


def same(resource: Any) -> Any:
    return resource


def load(device: Device) -> Device:
    return device


async def test_a_job_that_waits_for_a_slot_says_so(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        busy = director.submit(gate)
        await gate.begun()
        job = director.submit(same)
        found = await director.explain(job)
        assert isinstance(found, Explanation)
        assert found.job is job
        assert [reason.kind for reason in found.reasons] == ["slot", "order"]
        assert "simulated:0: 1 of 1 slots are taken" in found.text
        assert "1 jobs wait, 0 of them come first" in found.text
        gate.open()
        await asyncio.gather(busy, job)


async def test_a_job_that_does_not_wait_has_no_reasons(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        busy = director.submit(gate)
        await gate.begun()
        found = await director.explain(busy)
        assert found.reasons == ()
        assert "running on simulated:0" in found.text
        gate.open()
        await busy
        assert (await director.explain(busy)).text.endswith("it is succeeded on simulated:0")


async def test_a_job_that_waits_for_memory_has_the_numbers(gate: Gate) -> None:
    held, wanted = Model(load, memory="6GiB", name="held"), Model(load, memory="3GiB", name="wanted")
    async with Director(simulated_devices(1, memory=8 * GIB), slots=2) as director:
        busy = director.submit(gate, model=held)
        await gate.begun()
        job = director.submit(same, model=wanted)
        await until(lambda: director.stats().devices[0].memory.models[0].state == "draining")
        found = await director.explain(job)
        (memory,) = [reason for reason in found.reasons if reason.kind == "memory"]
        assert memory.device == "simulated:0"
        assert "needs 3 GiB, and 2 GiB of 8 GiB are free, short by 1 GiB" in memory.text
        assert "held 6 GiB (draining)" in memory.text
        gate.open()
        await asyncio.gather(busy, job)


async def test_a_pinned_model_is_named_as_what_is_in_the_way(gate: Gate) -> None:
    pinned = Model(load, memory="6GiB", pin=True, name="pinned")
    async with Director(simulated_devices(1, memory=8 * GIB)) as director:
        await director.load(pinned)
        job = director.submit(same, model=Model(load, memory="3GiB"))
        assert "pinned 6 GiB (pinned)" in (await director.explain(job)).text
        job.cancel()


async def test_a_job_that_waits_for_a_load_says_which() -> None:
    go = threading.Event()

    def slow(device: Device) -> Device:
        assert go.wait(PATIENCE)
        return device

    model = Model(slow, memory=GIB, name="slow")
    async with Director(simulated_devices(1, memory=GIB), slots=2) as director:
        jobs = [director.submit(same, model=model) for _ in range(2)]
        await until(lambda: any(job.state.value == "running" for job in jobs))
        (waiting,) = [job for job in jobs if job.state.value == "queued"]
        found = await director.explain(waiting)
        assert "load" in [reason.kind for reason in found.reasons]
        assert "slow is loading on simulated:0" in found.text
        go.set()
        await asyncio.gather(*jobs)


async def test_who_comes_first_is_counted(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        busy = director.submit(gate)
        await gate.begun()
        jobs = [director.submit(same, priority=priority) for priority in (0, 2, 1)]
        assert "3 jobs wait, 1 of them come first" in (await director.explain(jobs[2])).text
        gate.open()
        await asyncio.gather(busy, *jobs)


async def test_what_is_no_job_and_a_closed_director_are_refused() -> None:
    director = Director("simulated:1")
    async with director:
        with pytest.raises(TypeError, match="takes a Job"):
            await director.explain("job")  # type: ignore[arg-type]
        job = director.submit(same)
        await job
    with pytest.raises(DirectorClosed):
        await director.explain(job)


async def test_stats_tell_who_has_what(gate: Gate) -> None:
    model, other = Model(load, memory="2GiB", name="m"), Model(load, memory="1GiB", name="other", pin=True)
    async with Director(simulated_devices(1, memory=8 * GIB), slots=2, memory_limit="7GiB") as director:
        await director.load(other)
        busy = director.submit(gate, model=model, memory="1GiB")
        await gate.begun()
        memory = director.stats().devices[0].memory
        assert isinstance(memory, MemoryStats)
        assert (memory.budget, memory.headroom, memory.reserved, memory.free) == (7 * GIB, 0, 4 * GIB, 3 * GIB)
        assert (memory.replicas, memory.loading, memory.calls) == (3 * GIB, 0, GIB)
        assert [(each.model, each.state, each.bytes, each.pinned) for each in memory.models] == [
            ("other", "resident", GIB, True),
            ("m", "resident", 2 * GIB, False),
        ]
        gate.open()
        await busy
        await rested(director)
        assert director.stats().devices[0].memory.calls == 0


async def test_an_eviction_is_told_with_what_it_was_for(recorder: Recorder) -> None:
    first, second = Model(load, memory=GIB, name="first"), Model(load, memory=GIB, name="second")
    async with Director(simulated_devices(1, memory=GIB), hooks=[recorder]) as director:
        for model in (first, second):
            await director.run(same, model=model)
        event = await recorder.seen(ModelEvicted)
        assert (event.model, event.wanted, event.bytes) == ("first", "second", GIB)
        await director.unload(second)
        assert len(recorder.of(ModelEvicted)) == 1, "what is unloaded by request is not evicted"
