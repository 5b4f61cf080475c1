"""Actors and nodes that die: a clear error, or none where nothing was lost; twice runs only what retries allow."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Recorder, outcome

from director import DeviceLost, Director, Health, JobAborted, Model, WorkerDied
from director.errors import NoDevices
from director.events import DeviceJoined, DeviceQuarantined, JobRetried
from director.timeline import Timeline
from executors.ray import work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANY = 1_000
THERE = 2 * 15  # on two slots, of 5 ms: one runs, and 70 ms of work are ahead at most


async def later(condition: Any, seconds: float = 30.0) -> None:
    """Wait for what takes Ray a while."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - Ray has no event for it
            await asyncio.sleep(0.02)


def runs(folder: Path) -> dict[int, int]:
    """How often each job has run that signs."""
    return {int(path.name): len(path.read_text().splitlines()) for path in folder.iterdir() if path.name.isdecimal()}


async def test_an_actor_that_dies_in_a_call(single: Director) -> None:
    before = await single.run(work.process_id)
    error = await outcome(single.run(work.die, 3))
    assert type(error) is WorkerDied
    assert error.device == single.devices[0]
    assert single.devices[0].label in str(error)
    assert await single.run(work.process_id) not in (before, os.getpid())


async def test_a_job_that_has_lost_its_actor_is_tried_again(solo: Any, tmp_path: Path) -> None:
    recorder = Recorder()
    async with Director(executor=solo, hooks=[recorder]) as director:
        job = director.submit(work.die_first, str(tmp_path / "once"), retries=1)
        assert await job > 0
        assert job.attempts == 2
    (retried,) = recorder.of(JobRetried)
    assert isinstance(retried.error, WorkerDied)


async def test_an_actor_that_was_killed_idle_is_replaced_without_a_word(single: Director, tmp_path: Path) -> None:
    before = await single.run(work.process_id)
    for number in range(2):
        os.kill(before, signal.SIGKILL)
        assert await single.run(work.sign, str(tmp_path), number, 0.0) == number
        before = int((tmp_path / str(number)).read_text())  # one line: it ran once
    assert single.stats().failed == 0


async def test_jobs_behind_one_whose_actor_is_killed_run_once(single: Director, tmp_path: Path) -> None:
    before = await single.run(work.process_id)
    jobs = [single.submit(work.sign, str(tmp_path), number, 0.05) for number in range(20)]
    await jobs[2]
    os.kill(before, signal.SIGKILL)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    lost = [each for each in outcomes if isinstance(each, WorkerDied)]
    assert len(lost) <= 1
    assert [each for each in outcomes if not isinstance(each, WorkerDied)] == [
        number for number, each in enumerate(outcomes) if not isinstance(each, WorkerDied)
    ]
    assert set(runs(tmp_path).values()) == {1}


async def test_a_closed_director_gives_its_devices_back(executor: Any, cluster: Any) -> None:
    import ray

    async with Director(executor=executor) as director:
        assert len(director.devices) == 4
        await director.run(work.process_id)
        with pytest.raises(NoDevices, match="other programs use them"):
            await Director(executor=replace(executor, start_timeout=0.5)).start()
    await later(lambda: ray.available_resources().get("GPU") == 4)
    await later(lambda: not _actors())


async def test_a_director_that_is_left_by_an_error_leaves_no_actor(solo: Any, tmp_path: Path) -> None:
    jobs = []

    async def leave() -> None:
        async with Director(executor=solo) as director:
            jobs.append(director.submit(work.sign, str(tmp_path), 1, 60.0))
            await later(lambda: (tmp_path / "1").exists())
            raise KeyError

    with pytest.raises(KeyError):
        await leave()
    assert isinstance(jobs[0].exception(), JobAborted)
    await later(lambda: not _actors())


async def test_a_node_that_joins_takes_work_within_seconds(executor: Any, cluster: Any) -> None:
    from executors.ray.conftest import NODE

    recorder, timeline = Recorder(), Timeline(memory=False)
    async with Director(executor=executor, hooks=[recorder, timeline], slots=2) as director:
        before = director.devices
        model = Model(work.load)
        await director.load(model)
        node = cluster.add_node(**NODE)
        try:
            await later(lambda: len(director.devices) == 6)
            new = [device for device in director.devices if device not in before]
            assert [event.device for event in recorder.of(DeviceJoined)] == new
            stats = director.stats().devices
            assert [each.slots for each in stats] == [2] * 6
            labels = {await director.run(_label, devices=device) for device in new}
            assert labels == {device.label for device in new}
            jobs = [director.submit(work.sleep, 0.02, model=model) for _ in range(200)]
            await asyncio.gather(*jobs)
            assert {job.device for job in jobs} == set(director.devices)
        finally:
            cluster.remove_node(node)
        await later(lambda: director.devices == before)
        assert await director.run(work.echo, 1) == 1
    assert {record.slot for record in timeline.records()} == set(range(12))


def _label(device: Any) -> str:
    return str(device.label)


@pytest.fixture
def third_node(cluster: Any) -> Iterator[Any]:
    """A node that may be lost."""
    from executors.ray.conftest import NODE

    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


async def test_a_node_is_killed_while_1000_jobs_run(
    executor: Any, cluster: Any, third_node: Any, tmp_path: Path
) -> None:
    recorder = Recorder()
    async with Director(executor=executor, hooks=[recorder]) as director:
        assert len(director.devices) == 6
        jobs = [director.submit(work.sign, str(tmp_path), number, 0.005, retries=number % 2) for number in range(MANY)]
        await asyncio.gather(*jobs[:100])
        cluster.remove_node(third_node)
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        lost = [number for number, each in enumerate(outcomes) if isinstance(each, WorkerDied)]
        assert len(lost) <= THERE  # what ran on its two slots, or was ready there to run next
        assert all(number % 2 == 0 for number in lost)  # with retries none is lost
        assert [each for each in outcomes if not isinstance(each, WorkerDied)] == [
            number for number in range(MANY) if number not in lost
        ]
        counts = runs(tmp_path)
        assert set(range(MANY)) - set(counts) <= set(lost)  # what was ready to run may not have begun
        assert sum(count > 1 for count in counts.values()) <= THERE
        assert all(number % 2 == 1 for number, count in counts.items() if count > 1)  # only with retries
        health = {stats.device.node: stats.health for stats in director.stats().devices}
        assert sorted(each.value for each in health.values()) == ["healthy", "healthy", "quarantined"]
        gone = next(stats.device for stats in director.stats().devices if stats.health is Health.QUARANTINED)
        assert isinstance(await outcome(_submit_to(director, gone)), DeviceLost)
    assert all("left the cluster" in event.reason for event in recorder.of(DeviceQuarantined))
    assert len(recorder.of(DeviceQuarantined)) == 2


async def _submit_to(director: Director, device: Any) -> Any:
    return await director.submit(work.process_id, devices=device)


def _actors() -> list[dict[str, Any]]:
    from ray._private.state import actors

    return [actor for actor in actors().values() if actor["State"] != "DEAD"]
