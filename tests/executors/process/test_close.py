"""The close of a Director with children: they are told, get their grace, and are ended."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from harness.gates import PATIENCE, outcome, until

from director import Director, DirectorClosed, JobAborted, ProcessExecutor
from executors.process import calls
from executors.process.leaks import is_alive, wait_until


async def begun(director: Director, fn: Any, *args: Any, **options: Any) -> Any:
    job = director.submit(fn, *args, **options)
    await until(lambda: job.progress)
    return job


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_child_is_told_and_ends_the_close_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    director = Director("cpu", executor="process")
    await director.start()
    running = await begun(director, calls.cooperative)
    waiting = director.submit(calls.echo)
    async with asyncio.timeout(PATIENCE):
        await director.close(0, grace=4 * PATIENCE)
    assert [type(job.exception()) for job in (running, waiting)] == [JobAborted, DirectorClosed]
    assert warnings_of(caplog) == []


async def test_what_it_returns_in_the_grace_is_delivered() -> None:
    director = Director("cpu", executor="process")
    await director.start()
    job = await begun(director, calls.partial)
    await director.close(0, grace=4 * PATIENCE)
    assert job.result() == "partial"


async def test_a_batch_and_a_stream_are_told(caplog: pytest.LogCaptureFixture) -> None:
    director = Director("cpu:2", executor="process")
    await director.start()
    batch = director.function(calls.cooperative_batch, max_batch_size=2).submit(1)
    await until(lambda: batch.progress)
    values = director.stream(calls.count_up, 10**9)
    assert await anext(values) is not None
    async with asyncio.timeout(PATIENCE):
        await director.close(0, grace=4 * PATIENCE)
    assert isinstance(batch.exception(), JobAborted)
    with suppress(JobAborted):
        async for _ in values:
            pass
        pytest.fail("the stream has ended as if it were whole")
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("is_over", [False, True])
async def test_one_that_does_not_end_is_ended(is_over: bool, caplog: pytest.LogCaptureFixture) -> None:
    director = Director("cpu", executor=ProcessExecutor(grace=0.1))
    await director.start()
    process = await director.run(calls.process_id)
    job = await begun(director, calls.stubborn)
    if is_over:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, 0.001)
    async with asyncio.timeout(PATIENCE):
        await director.close(None if is_over else 0, grace=0.01)
    assert type(await outcome(job)) is (asyncio.CancelledError if is_over else JobAborted)
    assert "its process is ended" in caplog.text
    wait_until(lambda: not is_alive(process))
