"""Applications and servers that are killed, leave and change: the others notice as little as can be."""

# ruff: noqa: ASYNC220, ASYNC240 -- what waits here is the test alone

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import served

from director import Director, JobState, Model, NoDevices, QueueFull, WorkerDied
from director._client import connector
from director.asgi import HealthEndpoints
from server.conftest import PATIENCE, appears, is_alive, server_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs

APPLICATION = """
import asyncio, sys
from director import Director
from harness import served
async def main():
    async with Director("simulated:1", server="s", server_linger=0.0) as director:
        job = director.submit(served.wait_cancelled, sys.argv[1])
        others = [director.submit(served.note, sys.argv[2], "killed") for _ in range(5)]
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_an_application_that_is_killed_leaves_nothing_behind(make: Make, tmp_path: Path) -> None:
    director, log = await make(), tmp_path / "log"
    command = [sys.executable, "-c", APPLICATION, str(tmp_path / "w"), str(log)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as application:
        await appears(tmp_path / "w.begun")
        await until(lambda: director.stats().queued == 5)
        mine = director.submit(served.note, str(log), "mine")
        application.kill()

    await mine
    assert (tmp_path / "w.ended").exists()
    assert log.read_text() == "mine\n"
    await until(lambda: director.stats().cancelled == 6)


async def test_the_jobs_of_a_server_that_is_killed_fail(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    running = director.submit(served.hold, holder.path)
    await holder.begun()
    waiting = director.submit(served.add, 1, 1)
    before = server_of(director)

    os.kill(before, signal.SIGKILL)
    outcomes = await asyncio.wait_for(asyncio.gather(running, waiting, return_exceptions=True), PATIENCE)

    assert [type(outcome) for outcome in outcomes] == [WorkerDied, WorkerDied]
    assert "server process 's'" in str(outcomes[0])
    assert await director.run(served.process) == server_of(director) != before


async def test_jobs_with_retries_are_made_by_the_next_server(make: Make, tmp_path: Path) -> None:
    director, log = await make(), str(tmp_path / "log")
    first = director.submit(served.wait_cancelled, str(tmp_path / "w"), retries=1)
    second = director.submit(served.note, log, "once", retries=1)
    await appears(tmp_path / "w.begun")
    await until(lambda: first.state is JobState.RUNNING)
    Path(tmp_path / "w.begun").unlink()

    os.kill(server_of(director), signal.SIGKILL)
    await appears(tmp_path / "w.begun")

    await until(lambda: first.state is JobState.RUNNING)
    assert first.attempts == 2
    first.cancel()
    await asyncio.wait_for(second, PATIENCE)
    assert Path(log).read_text() == "once\n"


@pytest.mark.parametrize("retries", [1, 3])
async def test_a_job_that_kills_each_server_is_called_no_more_often_than_its_retries_allow(
    make: Make, caplog: pytest.LogCaptureFixture, retries: int
) -> None:
    """Though the server is gone before it can tell of the start."""
    director = await make()
    with pytest.raises(WorkerDied):
        async with asyncio.timeout(PATIENCE):  # without a turn of the loop between the end of the job and what follows
            await director.submit(served.kill, retries=retries)
    assert sum("was lost" in record.message for record in caplog.records) == retries + 1


async def test_two_applications_that_notice_a_dead_server_start_one(make: Make) -> None:
    one, two = await make(), await make()
    before = server_of(one)

    os.kill(before, signal.SIGKILL)
    await until(lambda: {-1, before}.isdisjoint(map(server_of, (one, two))))

    assert server_of(one) == server_of(two)
    assert await one.run(served.process) == await two.run(served.process)


async def test_the_server_ends_with_its_last_application(make: Make) -> None:
    one, two = await make(), await make()
    server = server_of(one)

    await one.close()
    assert await two.run(served.process) == server
    await two.close()

    await until(lambda: not is_alive(server))


async def test_a_server_that_lingers_keeps_its_models(make: Make) -> None:
    model = Model(served.load)
    one = await make(server_linger=PATIENCE)
    server, before = server_of(one), await one.run(served.replica, model=model)
    await one.close()

    two = await make(server_linger=PATIENCE)
    again = await two.run(served.replica, model=Model(served.load))

    assert (server_of(two), again) == (server, before)
    await two.close()
    os.kill(server, signal.SIGTERM)  # ends it at once, for nobody is there


async def test_sigterm_to_a_server_with_applications_does_not_end_their_jobs(
    make: Make, hold: Callable[[], Holder]
) -> None:
    director, holder = await make(), hold()
    job = director.submit(served.hold, holder.path)
    await holder.begun()

    os.kill(server_of(director), signal.SIGTERM)
    holder.let_go()

    assert await job == server_of(director)


async def test_other_arguments_under_one_name_are_refused_with_what_differs(make: Make) -> None:
    await make(max_queue=5)

    with pytest.raises(ValueError, match="started with max_queue=5, and this one asks for max_queue=6"):
        await Director("simulated:1", server="s", max_queue=6).start()


async def test_devices_that_are_not_there_are_told_and_leave_no_server(runtime_dir: Path) -> None:
    director = Director("gpu", server="s", server_linger=0.0)

    with pytest.raises(NoDevices):
        await director.start()

    assert director.state.value == "new"
    await until(lambda: not (runtime_dir / "server" / "s" / "socket").exists())


async def test_the_queue_is_bounded_for_all_applications_together(make: Make, hold: Callable[[], Holder]) -> None:
    one, two, holder = await make(max_queue=3), await make(max_queue=3), hold()
    held = one.submit(served.hold, holder.path)
    await holder.begun()
    await until(lambda: held.state is JobState.RUNNING)
    jobs = [one.submit(served.add, 1, n) for n in range(2)] + [two.submit(served.add, 1, 2)]

    for director in (one, two):
        with pytest.raises(QueueFull):
            director.submit(served.add, 0, 0)
    patient = asyncio.ensure_future(two.run(served.add, 1, 3))
    holder.let_go()

    await held
    assert [*await asyncio.gather(*jobs), await patient] == [1, 2, 3, 4]


async def test_jobs_that_free_slots_are_about_to_take_do_not_count_as_waiting(
    make: Make, hold: Callable[[], Holder]
) -> None:
    director, holders = await make("simulated:2", max_queue=1), [hold() for _ in range(3)]

    jobs = [director.submit(served.hold, holder.path) for holder in holders]  # before the server can have told anything
    with pytest.raises(QueueFull) as refusal:
        director.submit(served.add, 0, 0)

    assert refusal.value.waiting == 1
    for holder in holders:
        holder.let_go()
    await asyncio.gather(*jobs)


async def test_without_a_queue_what_can_begin_at_once_is_taken(make: Make, hold: Callable[[], Holder]) -> None:
    one, two, holder = await make(max_queue=0), await make(max_queue=0), hold()

    held = one.submit(served.hold, holder.path)
    await until(lambda: held.state is JobState.RUNNING)
    for director in (one, two):
        with pytest.raises(QueueFull):
            director.submit(served.add, 0, 0)
    holder.let_go()
    await held

    assert await two.submit(served.add, 1, 2) == 3


@pytest.mark.parametrize("call", ["version", "functools.partial(version)", "Version()", "Version().version", "Version"])
async def test_changed_code_gets_a_server_of_its_own(make: Make, tmp_path: Path, monkeypatch: Any, call: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "changing.py"
    program = (
        "import asyncio, functools, sys\nfrom director import Director\nfrom changing import Version, version\n"
        "async def main():\n"
        "    async with Director('simulated:1', server='s', server_linger=0.0) as director:\n"
        f"        print(await director.run({call}), flush=True)\n"
        "        sys.stdin.readline()\n"
        f"        print(await director.run({call}), flush=True)\n"
        "asyncio.run(main())\n"
    )

    source = (
        "class Version(int):\n    def __new__(cls, device=None): return int.__new__(cls, {number})\n"
        "    def __call__(self, device): return {number}\n"
        "    def version(self, device): return {number}\n"
        "def version(device): return {number}\n"
    )

    def application() -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    module.write_text(source.format(number=1))
    with application() as old:
        assert old.stdout is not None
        assert await asyncio.to_thread(old.stdout.readline) == "1\n"
        module.write_text(source.format(number=2))
        with application() as new:
            assert new.stdout is not None
            assert await asyncio.to_thread(new.stdout.readline) == "2\n"
            # The old one is served as before.
            assert await asyncio.to_thread(old.communicate, "\n") == ("1\n", None)
            assert await asyncio.to_thread(new.communicate, "\n") == ("2\n", None)


async def test_a_server_that_does_not_answer_is_not_healthy(make: Make) -> None:
    director = await make()
    server = server_of(director)
    readiness = HealthEndpoints(director=director)
    assert director.healthy

    os.kill(server, signal.SIGSTOP)
    try:
        await until(lambda: not director.healthy)
        assert readiness.reasons() == ["the server process does not answer"]
    finally:
        os.kill(server, signal.SIGCONT)

    await until(lambda: director.healthy)
    assert readiness.reasons() == []


async def test_while_a_server_is_started_again_the_application_is_not_ready_and_says_why(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = await make()
    model = Model(served.load, name="net")
    readiness = HealthEndpoints(director=director, models=[model])
    await director.load(model)
    await until(lambda: not readiness.reasons())
    may_connect = hold_connections(director, monkeypatch)

    os.kill(server_of(director), signal.SIGKILL)
    await until(lambda: not director.healthy)
    assert readiness.reasons() == ["the server process was lost, and another one is being started"]
    may_connect.set()

    await until(lambda: director.healthy)
    assert readiness.reasons() == ["net is not loaded"], "the snapshot is that of the new server"


async def test_while_a_server_for_changed_code_is_started_the_application_is_not_ready_and_says_why(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = await make()
    readiness = HealthEndpoints(director=director)
    await director.run(served.process)
    may_connect = hold_connections(director, monkeypatch)

    backend: Any = director._runtime
    backend._move_on(backend.queue.link)  # as when the server has refused a call because of its version
    reason = "the server process has another version of the code, and another one is being started"
    assert readiness.reasons() == [reason]
    job = director.submit(served.process)
    assert reason in (await director.explain(job)).text
    may_connect.set()

    await asyncio.wait_for(job, PATIENCE)
    assert readiness.reasons() == []


def hold_connections(director: Director, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have the application connect to no other server until the event is set."""
    backend: Any = director._runtime
    connect, may_connect = backend._connector.connect, asyncio.Event()

    async def connect_later() -> Any:
        await may_connect.wait()
        return await connect()

    monkeypatch.setattr(backend._connector, "connect", connect_later)
    return may_connect


async def test_a_crowd_of_applications_starts_one_server(runtime_dir: Path) -> None:
    directors = [Director("simulated:1", server="s", server_linger=0.0) for _ in range(8)]

    await asyncio.gather(*(director.start() for director in directors))

    assert len({server_of(director) for director in directors}) == 1
    await asyncio.gather(*(director.close() for director in directors))


async def test_a_start_that_is_cancelled_leaves_no_server(runtime_dir: Path) -> None:
    director = Director("simulated:1", server="s", server_linger=0.0)
    starting = asyncio.ensure_future(director.start())
    await asyncio.sleep(0)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    socket_file = runtime_dir / "server" / "s" / "socket"
    await until(lambda: not socket_file.exists())


async def test_the_socket_is_for_this_user_only(make: Make, runtime_dir: Path) -> None:
    await make()
    place = runtime_dir / "server" / "s"

    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "socket").stat().st_mode) == 0o600


async def test_in_a_folder_that_a_group_shares_the_socket_is_for_this_user_only(make: Make, runtime_dir: Path) -> None:
    runtime_dir.mkdir()
    runtime_dir.chmod(0o2770)
    (runtime_dir / f"server-{os.geteuid()}").mkdir(mode=0o755)

    director = await make()

    assert await director.run(served.add, 1, 1) == 2
    place = runtime_dir / f"server-{os.geteuid()}" / "s"
    assert [stat.S_IMODE(each.stat().st_mode) & 0o777 for each in (place.parent, place)] == [0o700, 0o700]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_is_refused_by_the_server(make: Make, runtime_dir: Path) -> None:
    director = await make()
    path = runtime_dir / "server" / "s" / "socket"
    program = (
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.chdir(sys.argv[1])\nos.setuid(4242)\ns.connect('socket')\nprint(s.recv(10))\n"
    )
    for each in [path, *path.parents[:2]]:
        each.chmod(0o777)  # the file system would refuse it before
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(path.parent)], capture_output=True, text=True, check=False
    )

    assert done.stdout == "b''\n", done.stderr
    for each in [path, *path.parents[:2]]:
        each.chmod(0o700)
    assert await director.run(served.add, 1, 1) == 2


async def test_nonsense_on_the_socket_ends_that_connection_only(make: Make, runtime_dir: Path) -> None:
    director = await make()
    path = runtime_dir / "server" / "s" / "socket"

    for nonsense in (b"x", b"\x04" * 64, pickle.dumps([1, 2, 3]) * 20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.settimeout(PATIENCE)
            stranger.connect(str(path))
            stranger.send(nonsense)
            assert await asyncio.to_thread(stranger.recv, 10) == b""

    assert await director.run(served.add, 1, 1) == 2


async def test_an_exception_in_the_block_cancels_what_runs(make: Make, tmp_path: Path) -> None:
    director = await make()
    jobs = []

    async def use() -> None:
        async with Director("simulated:1", server="s", server_linger=0.0) as other:
            jobs.append(other.submit(served.wait_cancelled, str(tmp_path / "w")))
            await appears(tmp_path / "w.begun")
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await use()

    assert jobs[0].done()
    await appears(tmp_path / "w.ended")
    assert await director.run(served.add, 1, 1) == 2


async def test_what_a_server_cannot_have_is_said_at_once() -> None:
    from director import ProcessExecutor
    from director.testing import TestClock

    for wrong, said in (
        ({"shared": "x"}, "exclude each other"),
        ({"clock": TestClock()}, "clock= can't be given"),
        ({"executor": ProcessExecutor()}, "Executor object"),
        ({"health": None, "devices": [lambda: 1]}, "."),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            Director(**{"devices": "cpu", "server": "s", **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="letters, digits"):
        Director(server="../x")
    with pytest.raises(TypeError, match="a str"):
        Director(server=3)  # type: ignore[arg-type]


async def test_another_version_under_one_name_is_refused_with_what_differs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = await make()
    monkeypatch.setattr(connector, "version", lambda _package: "0.0.0")

    with pytest.raises(ValueError, match=r"started with version='[^']+', and this one asks for version='0\.0\.0'"):
        await Director("simulated:1", server="s").start()

    assert await director.run(served.add, 1, 1) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_an_application_does_not_talk_to_a_server_of_another_user(runtime_dir: Path) -> None:
    place = runtime_dir / "server" / "s"
    place.mkdir(parents=True, mode=0o700)
    runtime_dir.chmod(0o700)
    program = (
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.chdir(sys.argv[1])\ns.bind('socket')\nos.setuid(4242)\ns.listen()\nprint('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command, pipe = [sys.executable, "-c", program, str(place)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as stranger:
        assert stranger.stdout is not None
        assert await asyncio.to_thread(stranger.stdout.readline) == "ready\n"

        with pytest.raises(RuntimeError, match=f"process {stranger.pid} of user 4242 listens in"):
            await Director("simulated:1", server="s").start()
        stranger.kill()


async def test_when_all_get_sigterm_at_once_nothing_is_left(runtime_dir: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    applications = []
    for number in range(3):
        command = [sys.executable, "-c", APPLICATION, str(tmp_path / f"w{number}"), str(tmp_path / "log")]
        applications.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    try:
        for application in applications:
            assert application.stdout is not None
            assert await asyncio.to_thread(application.stdout.readline) == b"ready\n"
        await until(lambda: any(tmp_path.glob("w*.begun")))
        director = Director("simulated:1", server="s", server_linger=0.0)
        await director.start()
        server = server_of(director)
        await director.close()

        for pid in [server, *(application.pid for application in applications)]:
            os.kill(pid, signal.SIGTERM)

        assert [await asyncio.to_thread(each.wait, PATIENCE) for each in applications] == [-signal.SIGTERM] * 3
        await until(lambda: not is_alive(server))
        assert not (runtime_dir / "server" / "s" / "socket").exists()
        assert len([*tmp_path.glob("w*.begun")]) == len([*tmp_path.glob("w*.ended")])
    finally:
        for application in applications:
            application.kill()
            application.wait()
            assert application.stdout is not None
            application.stdout.close()


@pytest.mark.filterwarnings("ignore:.*never closed:ResourceWarning")
async def test_an_application_whose_event_loop_is_closed_leaves_the_server(make: Make, tmp_path: Path) -> None:
    director = await make()

    def abandon() -> None:
        """As a program that stops its event loop in the midst of a job."""
        loop = asyncio.new_event_loop()
        other = Director("simulated:1", server="s", server_linger=0.0)

        async def use() -> None:
            await other.start()
            other.submit(served.wait_cancelled, str(tmp_path / "w"))
            await appears(tmp_path / "w.begun")

        loop.run_until_complete(use())
        loop.close()
        states.append(other.state.value)

    states: list[str] = []
    await asyncio.to_thread(abandon)

    assert states == ["closed"]
    await appears(tmp_path / "w.ended")
    assert await asyncio.wait_for(director.run(served.add, 1, 1), PATIENCE) == 2
