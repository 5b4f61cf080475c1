"""`start_within` where the call is made in a child: its model is loaded there before the call begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from harness.gates import outcome, rested, until

from director import Director, JobTimeout, Model, ProcessExecutor
from director.testing import TestClock
from executors.process import calls

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_load_in_a_child_goes_on_and_the_function_is_not_called(tmp_path: Path) -> None:
    go, trace, clock = tmp_path / "go", tmp_path / "trace", TestClock()
    model = Model(calls.HangingLoader(str(go)))
    async with Director("cpu", executor="process", clock=clock) as director:
        job = director.submit(calls.note, str(trace), "called", model=model, start_within=5, timeout=1)
        await calls_are_loading(director)
        clock.advance(5)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option, job.ran, job.device) == ("queued", "start_within", None, None)
        clock.advance(100)  # its timeout does not end the child
        go.touch()
        await rested(director)
        assert director.stats().devices[0].models == (model.name,)
        assert not trace.exists()
        before = await director.run(calls.weigh, model=model)
        assert await director.run(calls.weigh, model=model, start_within=5) == before, "the child and its replica stay"


async def calls_are_loading(director: Director) -> None:
    """The child is there, and its slot waits for it."""

    def is_loading() -> bool:
        assert director._runtime is not None
        (slot,) = director._runtime.device_slots[0].slots
        call = slot.runner._call  # type: ignore[attr-defined]
        return call is not None and call.child is not None

    await until(is_loading)


@pytest.mark.parametrize("most", [1, 2])
async def test_a_load_before_a_call_is_none_of_the_calls_of_a_child(most: int) -> None:
    model = Model(calls.load)
    async with Director("cpu", executor=ProcessExecutor(max_jobs_per_worker=most)) as director:
        found = [await director.run(calls.weigh, model=model, start_within=60) for _ in range(4)]
    assert len(set(found)) == 4 // most
    assert found == sorted(found, key=found.index)


async def test_every_kind_of_call_runs_with_it() -> None:
    model = Model(calls.load)
    async with Director("cpu", executor="process") as director:
        assert await director.run(calls.echo, 1, start_within=60) == 1
        assert isinstance(await director.run(calls.weigh, model=model, start_within=60), int)
        assert [value async for value in director.stream(calls.count_up, 3, start_within=60)] == [0, 1, 2]
        async with director.lease(start_within=60) as device:
            assert device is director.devices[0]
        executor = director.as_executor(start_within=60)
        assert await asyncio.wrap_future(executor.submit(calls.bare_sum, 1, 2)) == 3
        with pytest.raises(calls.Rich, match="no such weights"):
            await director.run(calls.weigh, model=Model(calls.fail_to_load), start_within=60)
