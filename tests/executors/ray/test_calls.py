"""Calls in actors: what goes there, what comes back, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import threading
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.gates import Recorder, collected, outcome, until

from director import Director, JobError, JobTimeout, Model, share
from director.events import JobProgressed, ModelFailed, ModelLoaded, ModelUnloaded
from executors.ray import work


async def test_the_devices_are_those_of_the_nodes(director: Director) -> None:
    labels = [device.label for device in director.devices]
    assert len(set(labels)) == 4
    assert len({device.uuid for device in director.devices}) == 4
    nodes = {device.node for device in director.devices}
    assert len(nodes) == 2
    assert all(label.endswith(f"@{device.node}") for label, device in zip(labels, director.devices, strict=True))
    for device in director.devices:
        inner, visible = await director.run(work.where, devices=device)
        assert inner == device
        assert visible == str(device.index)


async def test_each_slot_has_an_actor_of_its_own(director: Director) -> None:
    found = [await director.run(work.process_id, devices=device) for device in director.devices]
    assert len({*found, os.getpid()}) == 5
    assert [await director.run(work.process_id, devices=device) for device in director.devices] == found


async def test_calls_of_every_kind(director: Director) -> None:
    secret = object.__hash__(director)
    assert await director.run(work.echo, {"a": [1, 2]}) == {"a": [1, 2]}
    assert await director.run(partial(work.echo, value=3)) == 3
    assert await director.run(lambda _device, number: number + secret, 1) == secret + 1
    assert [result async for result in director.map(work.echo, range(20))] == list(range(20))
    told = await director.run(work.process_facts, name="mine", priority=2, tenant=("acme", 7))
    assert told == ("mine", 1, 2, ("acme", 7))
    assert (await director.run(work.process_facts))[-1] is None
    double = director.function(work.double_all, max_batch_size=4)
    assert [result async for result in double.map(range(20))] == list(range(0, 40, 2))
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(director.as_executor(), os.getpid) != os.getpid()
    async with director.lease() as device:
        assert device in director.devices


async def test_100_megabytes_there_and_back(single: Director) -> None:
    count = 100 * 2**20
    assert await single.run(work.size, bytes(count), devices=single.devices[0]) == count
    zeros = await single.run(work.zeros, count, devices=single.devices[0])
    assert zeros.nbytes == count
    assert not zeros.any()


async def test_what_a_function_raises(single: Director) -> None:
    error = await outcome(single.run(work.fail, FileNotFoundError(2, "gone")))
    assert type(error) is FileNotFoundError
    assert "in fail" in "".join(error.__notes__)
    told = await outcome(single.run(work.fail_locally))
    assert type(told) is JobError
    assert "told all the same" in str(told)
    coroutine = await outcome(single.run(asyncio.sleep))
    assert "coroutine function" in str(coroutine)


async def test_a_class_that_actors_can_not_import_stays_the_same_class(single: Director) -> None:
    class Mine(Exception):
        pass

    def raise_mine(_device: Any) -> None:
        raise Mine("it is me")

    with pytest.raises(Mine, match="it is me"):
        await single.run(raise_mine)


async def test_what_can_not_be_pickled(single: Director) -> None:
    for job in (single.run(work.echo, threading.Lock()), single.run(work.unsendable)):
        error = await outcome(job)
        assert isinstance(error, pickle.PicklingError), repr(error)
        assert "can't be sent to another machine" in str(error)
    assert await single.run(work.echo, 1) == 1


async def test_what_is_shared_is_shipped_once(director: Director) -> None:
    import numpy as np

    table = share(np.arange(4 * 2**20, dtype=np.uint8))
    for device in director.devices:
        seen = [await director.run(work.address, table, number, devices=device) for number in range(3)]
        assert len({address for address, _ in seen}) == 1  # one object of the node's store, not one for each call
        assert [last for _, last in seen] == [0, 1, 2]
    first = director.function(work.double_all, max_batch_size=4)
    assert await asyncio.gather(*[first(share(number)) for number in range(4)]) == [0, 2, 4, 6]


# ---- models


async def test_a_model_is_loaded_once_for_each_actor(executor: Any) -> None:
    recorder = Recorder()
    model = Model(work.load)
    async with Director(executor=executor, hooks=[recorder]) as director:
        await director.load(model)
        assert len(recorder.of(ModelLoaded)) == 4
        jobs = [director.submit(work.use, model=model) for _ in range(20)]
        calls = [await job for job in jobs]
        counts = {process: max(count for other, count in calls if other == process) for process, _ in calls}
        assert sum(counts.values()) == 20
        assert all(stats.models == ("load",) for stats in director.stats().devices)
    assert len(recorder.of(ModelLoaded)) == 4
    assert len(recorder.of(ModelUnloaded)) == 4


async def test_a_replica_is_unloaded_at_the_end(solo: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "unloaded")

    def gone(_replica: Any) -> None:
        Path(path).write_text("unloaded")

    async with Director(executor=solo) as director:
        await director.run(work.use, model=Model(work.load, unload=gone))
    assert Path(path).read_text() == "unloaded"  # noqa: ASYNC240


async def test_a_model_that_can_not_be_loaded(solo: Any) -> None:
    recorder = Recorder()
    async with Director(executor=solo, hooks=[recorder]) as director:
        error = await outcome(director.run(work.use, model=Model(work.load_in_vain)))
        assert type(error) is FileNotFoundError
        assert await director.run(work.echo, 1) == 1
    assert recorder.of(ModelFailed)


# ---- streams


async def test_a_stream(single: Director) -> None:
    assert [value async for value in single.stream(work.count_up, 50)] == list(range(50))
    values, error = await collected(single.stream(work.count_and_fail, 5))
    assert values == list(range(5))
    assert type(error) is ValueError


async def test_who_leaves_a_stream_closes_its_generator(single: Director, tmp_path: Path) -> None:
    path = tmp_path / "closed"
    async with aclosing(single.stream(work.count_for_ever, str(path), buffer=2)) as values:
        assert [await anext(values) for _ in range(3)] == [0, 1, 2]
    await until(path.exists)
    assert int(path.read_text() or "0") < 20  # it did not run ahead of its reader


# ---- cancellation, time, progress, logs


async def test_cancellation_reaches_the_actor(single: Director, tmp_path: Path) -> None:
    path = tmp_path / "ended"
    job = single.submit(work.cooperative, str(path))
    await until(lambda: job.progress)
    job.cancel()
    await until(path.exists)
    await until(path.read_text)
    assert path.read_text() == "CancelledError"


async def test_a_timeout_reaches_the_actor(single: Director, tmp_path: Path) -> None:
    path = tmp_path / "ended"
    assert type(await outcome(single.submit(work.cooperative, str(path), timeout=0.3))) is JobTimeout
    await until(path.exists)
    await until(path.read_text)
    assert path.read_text() == "JobTimeout"


async def test_an_actor_that_does_not_ask_is_ended_after_its_timeout(solo: Any) -> None:
    from dataclasses import replace

    async with Director(executor=replace(solo, grace=0.1)) as director:
        device = director.devices[0]
        before = await director.run(work.process_id, devices=device)
        assert type(await outcome(director.submit(work.sleep, 60.0, timeout=0.1, devices=device))) is JobTimeout
        assert await director.run(work.process_id, devices=device) != before


async def test_the_last_report_is_there_when_the_job_is_over(solo: Any) -> None:
    recorder = Recorder()
    async with Director(executor=solo, hooks=[recorder]) as director:
        job = director.submit(work.report_all, 10)
        await job
    assert job.progress == 9
    assert recorder.of(JobProgressed)[-1].progress == 9


async def test_log_records_come_to_the_drivers_loggers(single: Director, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "app"):
        device = single.devices[-1]
        await single.run(work.log, "hello", devices=device)
        await until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.getMessage() == "hello from an actor"
    assert record.name == "app.inside"
    assert record.processName == device.label
