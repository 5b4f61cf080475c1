"""Never the data of another call, whatever is sent, left, refused or killed: attacks on the wire of a child."""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, outcome, until

from director import Director, JobError, WorkerDied
from director._executors.process import child_process
from director._ipc import shared_memory as segments
from executors.process import calls
from executors.process import hostile_calls as hostile
from executors.process.leaks import children, is_alive, open_files, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (100, 8_000, 3_000_000)
KINDS = (ValueError, SystemExit, KeyboardInterrupt, RecursionError)


async def assert_sound(director: Director, whose: str = "bob") -> None:
    """The next calls get what is theirs, of each size, and so do streams."""
    for size in SIZES:
        assert await director.run(hostile.say, whose, size) == (whose, b"." * size)
        got = [value async for value in director.stream(hostile.speak, whose, 6, size)]
        assert got == [(whose, n, b"." * size) for n in range(6)]
    jobs = [director.submit(hostile.say, n, SIZES[n % 2]) for n in range(20)]
    assert [value[0] for value in await asyncio.gather(*jobs)] == list(range(20))


@pytest.mark.parametrize("size", SIZES)
async def test_a_reader_who_leaves_takes_its_values_along(director: Director, size: int) -> None:
    process = await director.run(calls.process_id)
    for step in range(7):
        async with aclosing(director.stream(hostile.speak, "alice", 1000, size, buffer=1 + step % 2)) as values:
            for n in range(step):
                assert (await anext(values))[:2] == ("alice", n)
            if step % 3 == 2:
                await asyncio.sleep(0.01)  # the child sends what it may
        assert await director.run(hostile.say, step, size) == (step, b"." * size)
    await assert_sound(director)
    assert await director.run(calls.process_id) == process
    assert open_files() < 100


@pytest.mark.parametrize("size", SIZES)
async def test_what_raises_when_it_is_received_fails_its_own_call(director: Director, size: int) -> None:
    process = await director.run(calls.process_id)
    before = open_files()
    for kind in KINDS:
        assert isinstance(await outcome(director.submit(hostile.return_raiser, kind, size)), pickle.PicklingError)
        assert isinstance(await outcome(director.submit(hostile.say, hostile.Raiser(kind, size))), kind)
        got: list[Any] = []
        with pytest.raises(BaseException, match="it raises when it is received"):  # noqa: PT012
            async for value in director.stream(hostile.yield_raiser, kind, size):
                got.append(value)  # noqa: PERF401
        assert got == ["first"]
    assert await director.run(hostile.report_raisers, "mine", size) == "mine"
    await assert_sound(director)
    assert await director.run(calls.process_id) == process
    assert open_files() <= before + 1


async def test_what_raises_when_it_is_sent_fails_its_own_call(director: Director) -> None:
    process = await director.run(calls.process_id)
    for kind in KINDS:
        for job in (
            director.submit(hostile.return_unsendable, kind),
            director.submit(hostile.say, hostile.Unsendable(kind)),
        ):
            assert isinstance(await outcome(job), (pickle.PicklingError, kind))
    assert isinstance(await outcome(director.submit(hostile.return_endless)), pickle.PicklingError)
    await assert_sound(director)
    assert await director.run(calls.process_id) == process


async def test_a_request_that_is_refused_by_the_system_leaves_no_trace(
    director: Director, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await director.run(calls.process_id)
    send = child_process.send
    for size in SIZES:
        for steps in range(3):  # before the first, the second and the third message
            left = [steps]

            def refuse(target: Any, message: bytes, descriptor: int = -1, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(105, os.strerror(105))
                send(target, message, descriptor)

            monkeypatch.setattr(child_process, "send", refuse)
            jobs = [director.submit(hostile.say, n, b"x" * size) for n in range(3)]
            results = [await outcome(job) for job in jobs]
            assert [isinstance(result, OSError) for result in results] == [n == steps for n in range(3)]
        monkeypatch.undo()
    await assert_sound(director)
    assert await director.run(calls.process_id) == process


async def test_a_segment_that_can_not_be_received_fails_its_own_call(director: Director) -> None:
    process = await director.run(calls.process_id)
    before = await director.run(hostile.limit_descriptors, 0)
    job = director.submit(hostile.say, b"x" * 100_000)
    error = await outcome(job)
    assert isinstance(error, (OSError, JobError))
    assert "Too many open files" in str(error)
    assert await director.run(hostile.say, "small") == ("small", b"")
    await director.run(hostile.limit_descriptors, before)
    await assert_sound(director)
    assert await director.run(calls.process_id) == process


async def test_results_for_which_this_process_has_no_descriptor_fail_alone(director: Director, tmp_path: Path) -> None:
    process = await director.run(calls.process_id)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    go = tmp_path / "go"
    job = director.submit(calls.held, str(go), b"x" * 100_000)
    await until(lambda: job.progress)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        go.mkdir()  # which takes no descriptor
        await asyncio.wait([job])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert isinstance(job.exception(), (pickle.PicklingError, OSError))
    await assert_sound(director)
    assert await director.run(calls.process_id) == process


async def test_a_segment_that_is_cut_fails_its_own_call(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    await assert_sound(director)
    before = open_files()
    for _ in range(3):
        monkeypatch.setattr(segments.libc(), "ftruncate", lambda descriptor, _length: os.truncate(descriptor, 10) or 0)
        assert isinstance(await outcome(director.submit(hostile.say, b"x" * 3_000_000)), OSError)
        monkeypatch.undo()
        await assert_sound(director)
    assert open_files() <= before + 10


@pytest.mark.parametrize("forks", [False, True])
async def test_a_result_that_reports_logs_and_forks_while_it_is_pickled(director: Director, forks: bool) -> None:
    job = director.submit(hostile.return_reporter, "mine", forks)
    assert await job == ("mine",)
    assert job.progress == ("while pickled", "mine")
    await assert_sound(director)


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 3), ("in C", 0)])
async def test_a_copy_that_comes_back_from_its_call_leaves(
    director: Director, tmp_path: Path, how: str, code: int
) -> None:
    path = tmp_path / "came by"
    copy = await director.run(hostile.fork_and_return, str(path), how)
    assert await director.run(hostile.await_copy, copy) == code
    assert path.read_text().split().count("False") == 1
    await assert_sound(director)


async def test_a_copy_that_comes_back_from_a_generator_leaves(director: Director) -> None:
    assert [value async for value in director.stream(hostile.fork_and_yield, 5)] == list(range(5))
    await assert_sound(director)


async def test_what_old_calls_say_is_not_of_the_new_one(director: Director) -> None:
    await director.run(hostile.start_talking, 1.0)
    jobs = [director.submit(hostile.say, n, SIZES[n % 3]) for n in range(60)]
    assert [(await job)[0] for job in jobs] == list(range(60))
    assert [job.progress for job in jobs] == [None] * 60
    await assert_sound(director)


async def test_garbage_ends_the_child_and_never_becomes_a_value(director: Director) -> None:
    for n in range(2):
        process = await director.run(calls.process_id)
        error = await outcome(director.submit(hostile.write_garbage, n))
        assert isinstance(error, WorkerDied)
        wait_until(lambda process=process: not is_alive(process))
        await assert_sound(director)


@pytest.mark.serial
async def test_arguments_are_touched_in_their_own_turn_alone() -> None:
    """A slow, or raising, one is of no concern to the calls before it, though it could have been sent ahead."""
    async with Director("cpu", executor="process", max_queue=None) as director:
        await asyncio.gather(*(director.submit(calls.nap, 0.002) for _ in range(20)))
        before = [director.submit(calls.nap, 0.002, n) for n in range(20)]
        bad = [director.submit(calls.nap, 0.0, hostile.Slow(0.5, kind)) for kind in (None, SystemExit, ValueError)]
        after = [director.submit(calls.nap, 0.002, n) for n in range(20)]
        began = time.monotonic()
        assert await asyncio.gather(*before) == list(range(20))
        assert time.monotonic() - began < 0.45
        assert [type(await outcome(job)) is hostile.Slow for job in bad] == [True, False, False]
        assert await asyncio.gather(*after) == list(range(20))


async def test_no_child_is_left_that_a_job_has_started(tmp_path: Path) -> None:
    """They are in the process group of the child, which is ended with it."""
    before = children()
    path = tmp_path / "pid"
    async with Director("cpu", executor="process") as director:
        await director.run(hostile.leave_sleeping, str(path))
        started = int(path.read_text())
        assert is_alive(started)
        assert isinstance(await outcome(director.submit(calls.die, 3)), WorkerDied)
        wait_until(lambda: not is_alive(started))
        await director.run(hostile.leave_sleeping, str(path))
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE
    wait_until(lambda: not is_alive(int(path.read_text())))
    assert children() <= before
