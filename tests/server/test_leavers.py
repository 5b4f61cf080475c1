"""Whatever leaves early, changes or can't be sent: no job is left without an end, and the server goes on."""

# ruff: noqa: ASYNC220 -- what waits here is the test alone

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from executors.process.leaks import stop
from harness import served
from harness.gates import turns

from director import Director, DirectorClosed, JobAborted, JobState, SlowReader
from director._client import encoding
from server.conftest import PATIENCE, appears, server_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs


def descriptors(process: int) -> int:
    """How many it has open."""
    return len([*Path(f"/proc/{process}/fd").iterdir()])


async def within(waited: Awaitable[Any]) -> Any:
    """What comes, and not a test that hangs."""
    return await asyncio.wait_for(waited, PATIENCE)


async def collect(stream: Any) -> list[Any]:
    """All its values."""
    return [value async for value in stream]


def wait_unnoticed(path: Path) -> None:
    """Wait for a file, while the event loop hears nothing."""
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.002)


async def test_a_reader_that_leaves_when_the_generator_is_done_lets_the_director_drain(make: Make) -> None:
    director = await make()

    stream = director.stream(served.count, 12, buffer=8)
    await anext(stream)
    await until(lambda: director.stats().succeeded == 1)
    await stream.aclose()

    await within(director.close(grace=2 * PATIENCE))


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_generator_is_closed_where_it_runs_and_what_it_does_then_is_logged(
    make: Make, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    director = await make(executor=executor)

    async with director.stream(served.fail_when_closed, buffer=1) as stream:
        await anext(stream)

    await until(lambda: "fail_when_closed raised while it was closed" in caplog.text)
    assert "fail_when_closed yields while it is closed" in caplog.text
    assert await within(director.run(served.add, 1, 1)) == 2


async def test_a_stream_that_nobody_reads_is_cut_though_the_generator_would_wait(make: Make) -> None:
    director = await make()

    stream = director.stream(served.count, 100, buffer=4, on_slow_reader="wait", slow_reader_timeout=0.05)

    with pytest.raises(SlowReader):
        await within(stream.job)
    assert await within(director.run(served.add, 1, 1)) == 2


async def test_closing_does_not_wait_for_the_reader_of_a_stream(make: Make) -> None:
    director = await make()
    stream = director.stream(served.count, 100, buffer=4, slow_reader_timeout=0.05)
    assert await anext(stream) == 0

    await within(director.close())

    with pytest.raises(SlowReader):
        await within(stream.job)


async def test_a_generator_that_has_ended_waits_for_no_reader(make: Make) -> None:
    director = await make()
    stream = director.stream(served.count, 8, buffer=4, on_slow_reader="wait")
    assert await anext(stream) == 0

    await within(stream.job)

    assert await within(collect(stream)) == [*range(1, 8)]


async def test_a_reader_that_stops_reading_is_told_so_after_the_values(make: Make) -> None:
    director = await make()
    stream = director.stream(served.count, 100, buffer=4, on_slow_reader="cancel", slow_reader_timeout=0.05)
    assert await anext(stream) == 0

    with pytest.raises(SlowReader):
        await within(stream.job)

    assert [await anext(stream) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(SlowReader):
        await within(collect(stream))


async def test_progress_that_cannot_be_unpickled_costs_no_other_message(make: Make) -> None:
    director = await make()

    outcomes = await within(asyncio.gather(*(director.run(served.report_unreadable, n) for n in range(20))))

    assert outcomes == [*range(20)]


async def test_a_result_and_an_exception_that_cannot_be_pickled_fail_their_own_job(make: Make) -> None:
    director = await make()

    with pytest.raises(Exception, match="can't be sent"):
        await within(director.run(served.unpicklable_result))
    with pytest.raises(Exception, match="LocalError"):
        await within(director.run(served.unpicklable_error))
    assert await within(director.run(served.add, 1, 1)) == 2


async def test_options_that_are_too_long_are_refused_and_leave_nothing(make: Make) -> None:
    director = await make()

    with pytest.raises(ValueError, match="bytes, and at most"):
        director.submit(served.add, 1, 1, name="n" * 100_000)

    await within(director.drain())


@pytest.mark.parametrize("begun", [False, True])
async def test_large_arguments_are_cancelled_while_they_are_copied(make: Make, begun: bool) -> None:
    director = await make()
    load = bytearray(50 << 20)

    job = director.submit(served.size, load)
    if begun:
        await asyncio.sleep(0)
    job.cancel()
    others = [director.submit(served.size, load) for _ in range(3)]
    others[1].cancel()

    assert await within(others[0]) == await within(others[2]) == 50 << 20
    assert job.cancelled()
    assert others[1].cancelled()
    await within(director.drain())


async def test_a_server_without_descriptors_fails_the_jobs_that_need_one(make: Make) -> None:
    director = await make()
    server = server_of(director)
    first = await director.run(served.text, 100)
    _, most = resource.prlimit(server, resource.RLIMIT_NOFILE)

    resource.prlimit(server, resource.RLIMIT_NOFILE, (descriptors(server), most))
    outcomes = await within(
        asyncio.gather(*(director.run(served.text, 100_000) for _ in range(5)), return_exceptions=True)
    )
    resource.prlimit(server, resource.RLIMIT_NOFILE, (most, most))

    assert len(first) == 100
    assert all(isinstance(outcome, OSError) for outcome in outcomes), outcomes
    assert len(await within(director.run(served.text, 100_000))) == 100_000
    assert server_of(director) == server


async def test_what_is_asked_when_the_director_closes_is_answered(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    server = server_of(director)
    held = director.submit(served.hold, holder.path)
    await holder.begun()
    waiting = director.submit(served.add, 1, 1)

    stop(server)
    try:
        question = asyncio.ensure_future(director.explain(waiting))
        await asyncio.sleep(0)
        await within(director.close(0, grace=0))
        await within(asyncio.gather(question, held, waiting, return_exceptions=True))
    finally:
        os.kill(server, signal.SIGCONT)
    holder.let_go()


async def test_a_call_that_has_begun_is_not_said_to_have_never_run(
    make: Make, hold: Callable[[], Holder], tmp_path: Path
) -> None:
    director, other, holder, log = await make(), await make(), hold(), tmp_path / "log"
    held = director.submit(served.hold, holder.path)
    waiting = [director.submit(served.note, str(log), "run") for _ in range(3)]
    await turns(2)  # it is sent
    wait_unnoticed(Path(f"{holder.path}.begun"))
    assert held.state is JobState.QUEUED

    await within(director.close(0, grace=0))

    assert isinstance(held.exception(), JobAborted)
    assert all(isinstance(job.exception(), DirectorClosed) for job in waiting)
    holder.let_go()
    assert await within(other.run(served.add, 1, 1)) == 2
    assert not log.exists()


async def test_a_call_that_has_begun_unnoticed_has_its_grace(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    held = director.submit(served.hold, holder.path)
    waiting = director.submit(served.add, 1, 1)
    waiting.add_done_callback(lambda _: holder.let_go())
    await turns(2)  # it is sent
    wait_unnoticed(Path(f"{holder.path}.begun"))

    await within(director.close(0, grace=2 * PATIENCE))

    assert isinstance(waiting.exception(), DirectorClosed)
    assert held.state is JobState.SUCCEEDED


async def test_nothing_is_tried_again_while_the_director_closes(
    make: Make, hold: Callable[[], Holder], tmp_path: Path
) -> None:
    director, holder, log = await make(), hold(), tmp_path / "log"
    failing = director.submit(served.hold_and_fail, holder.path, str(log), retries=5, retry_on=served.Odd)
    waiting = director.submit(served.add, 1, 1)
    waiting.add_done_callback(lambda _: holder.let_go())
    await holder.begun()

    await within(director.close(0, grace=2 * PATIENCE))

    assert isinstance(failing.exception(), served.Odd)
    assert log.read_text() == "called\n"


async def test_jobs_that_an_old_server_has_are_cancelled_and_waited_for(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(encoding._sources, "harness.served", b"another version")
    director = await make("simulated:2")
    old = server_of(director)
    kept = director.submit(served.wait_cancelled, str(tmp_path / "kept"), devices="simulated:0")
    left = director.submit(served.wait_cancelled, str(tmp_path / "left"), devices="simulated:0")
    await appears(tmp_path / "kept.begun")
    await until(lambda: kept.state is JobState.RUNNING)
    encoding._sources["harness.served"] = b"this version"
    backend: Any = director._runtime
    backend._encoder._named.clear()

    assert await within(director.run(served.process)) != old
    draining = asyncio.ensure_future(director.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    left.cancel()
    kept.cancel()

    await appears(tmp_path / "kept.ended")
    await within(draining)
    assert not (tmp_path / "left.begun").exists()
    await within(director.close(grace=2 * PATIENCE))


async def test_a_job_given_while_there_is_no_server_fails_alone_if_it_cannot_be_sent(make: Make) -> None:
    director = await make()
    os.kill(server_of(director), signal.SIGKILL)
    await until(lambda: server_of(director) == -1)

    wrong = director.submit(served.add, threading.Lock(), 1)
    right = director.submit(served.add, 1, 1)

    with pytest.raises(Exception, match="can't be sent"):
        await within(wrong)
    assert await within(right) == 2
    assert director.healthy


async def test_a_process_that_a_job_has_forked_does_not_stand_for_the_server(make: Make, tmp_path: Path) -> None:
    director = await make()
    child = await within(director.run(served.fork_and_pause))
    before = server_of(director)

    try:
        os.kill(before, signal.SIGKILL)

        assert await within(director.run(served.process, retries=3)) != before
    finally:
        os.kill(child, signal.SIGKILL)


async def test_no_job_hangs_whose_result_a_child_cannot_pass_on(make: Make) -> None:
    director = await make(executor="process")
    server = server_of(director)
    await director.run(served.text, 100)
    _, most = resource.prlimit(server, resource.RLIMIT_NOFILE)

    resource.prlimit(server, resource.RLIMIT_NOFILE, (descriptors(server), most))
    outcomes = await within(
        asyncio.gather(*(director.run(served.text, 100_000) for _ in range(5)), return_exceptions=True)
    )
    resource.prlimit(server, resource.RLIMIT_NOFILE, (most, most))

    # A descriptor may come free in between: which of them fail is a matter of time.
    assert all(isinstance(outcome, Exception) or len(outcome) == 100_000 for outcome in outcomes), outcomes
    assert len(await within(director.run(served.text, 100_000))) == 100_000


FORKING = """
import asyncio, os, signal, sys
from director import Director
from harness import served
async def main():
    director = Director("simulated:1", server="s", server_linger=0.0)
    await director.start()
    director.submit(served.wait_cancelled, sys.argv[1])
    while not os.path.exists(sys.argv[1] + ".begun"):
        await asyncio.sleep(0.002)
    child = os.fork()
    if not child:
        try:
            director.submit(served.add, 1, 1)
        except RuntimeError as error:
            print(error, flush=True)
        signal.pause()
    print(child, flush=True)
    signal.pause()
asyncio.run(main())
"""


async def test_a_forked_copy_of_an_application_is_told_and_keeps_no_connection(make: Make, tmp_path: Path) -> None:
    director = await make()
    command = [sys.executable, "-c", FORKING, str(tmp_path / "w")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as application:
        child = 0
        try:
            assert application.stdout is not None
            lines = [await within(asyncio.to_thread(application.stdout.readline)) for _ in range(2)]
            child = next((int(line) for line in lines if line.strip().isdigit()), 0)
            assert any("start it again in this process" in line for line in lines), lines
            application.kill()
            await appears(tmp_path / "w.ended")
            assert await within(director.run(served.add, 1, 1)) == 2
        finally:
            application.kill()
            if child:
                os.kill(child, signal.SIGKILL)


LEAVING = """
import asyncio, os, sys
from director import Director
from harness import served
async def main():
    director = Director("simulated:1", server="s", server_linger=0.0)
    await director.start()
    streams = [director.stream(served.count, 12, buffer=8) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    while director.stats().succeeded < 3:
        await asyncio.sleep(0.002)
    os._exit(0)
asyncio.run(main())
"""


async def test_an_application_that_leaves_with_streams_half_read_is_forgotten(make: Make) -> None:
    director = await make()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    with subprocess.Popen([sys.executable, "-c", LEAVING], env=environment) as application:
        assert await asyncio.to_thread(application.wait, PATIENCE) == 0

    assert await within(director.run(served.add, 1, 1)) == 2  # `make` checks that the server ends with this one
