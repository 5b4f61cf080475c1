"""The socket of a running app: who may connect, what is answered, and that nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import stat
import tempfile
import tracemalloc
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dashboard.conftest import take
from director import Director
from director.dashboard import Dashboard
from director.dashboard import _socket_paths as _places
from director.dashboard._source import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director.testing import TestClock

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the address of a Unix socket has 108 bytes at most."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="director-") as folder:
        yield Path(folder)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for sockets and the like."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return folder


async def ask(path: Path, question: bytes) -> Any:
    """The first line of the answer."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(question)
    try:
        return json.loads(await reader.readline())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.every_loop
async def test_everything_that_can_be_asked(clock: TestClock, runtime: Path) -> None:
    director = Director("simulated:1", clock=clock, name="vision")
    async with Dashboard(director).serve() as path, director:
        await director.run(str, name="warm-up")
        remote = Remote(path)
        assert (await remote.snapshot())["name"] == "vision"
        assert (await remote.job(1) or {})["name"] == "warm-up"
        assert await remote.job(2) is None
        assert await remote.failure(1) is None
        async with aclosing(remote.frames()) as frames:
            whole, frame = await take(frames, 2)
            assert whole["identity"]["name"] == "vision"
            assert frame["number"] == whole["number"] + 1
        async with aclosing(remote.frames(after=frame["number"])) as frames:
            assert "identity" not in (await take(frames, 1))[0]


async def test_where_it_is_and_who_may_connect(runtime: Path) -> None:
    dashboard = Dashboard(Director("simulated:1"))
    async with dashboard.serve() as path:
        assert path == runtime / "director" / f"{os.getpid()}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert _places.known_paths() == [path]
        async with Dashboard(Director("simulated:1")).serve() as second:
            assert second.name == f"{os.getpid()}-2.sock"
    assert not path.exists()


async def test_a_path_of_ones_own(tmp_path: Path) -> None:
    async with Dashboard(Director("simulated:1")).serve(tmp_path / "own.sock") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await Remote(path).snapshot())["state"] == "new"
        with pytest.raises(OSError, match="in use"):
            async with Dashboard(Director("simulated:1")).serve(path):
                pass
        assert (await Remote(path).snapshot())["state"] == "new", "the first one is still there"


async def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is too long for a socket, which may have 107 bytes"):
        async with Dashboard(Director("simulated:1")).serve(tmp_path / ("x" * 107)):
            pass


async def test_without_a_runtime_folder(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    async with Dashboard(Director("simulated:1")).serve() as path:
        assert path.parent == tmp_path / f"director-{os.getuid()}"
        assert path in _places.known_paths()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    async with Dashboard(Director("simulated:1")).serve():
        assert len(_places.known_paths()) == 1


@pytest.mark.parametrize("wrong", ["open to all", "a link", "a file"])
async def test_a_folder_that_others_could_use_is_refused(wrong: str, runtime: Path) -> None:
    folder = runtime / "director"
    if wrong == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    elif wrong == "a link":
        (runtime / "elsewhere").mkdir()
        folder.symlink_to(runtime / "elsewhere")
    else:
        folder.write_text("")
    with pytest.raises((PermissionError, FileExistsError)):
        async with Dashboard(Director("simulated:1")).serve():
            pass


async def test_what_dead_apps_left_is_taken_off(runtime: Path) -> None:
    folder = _places.own_folder()
    left, new = folder / "1.sock", folder / "2.sock"
    for path in (left, new):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    os.utime(left, (0, 0))
    async with Dashboard(Director("simulated:1")).serve() as path:
        assert {entry.name for entry in folder.iterdir()} == {path.name, "2.sock"}, "2 may just be about to listen"


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        (b"what?\n", "not a question"),
        (b"[]\n", "not a question"),
        (b'{"ask": "frames", "more": 1}\n', "not a question"),
        (b'{"ask": "stop"}\n', '"ask" is one of'),
        (b'{"ask": "job", "number": "1"}\n', "whole numbers"),
        (b'{"ask": "job", "number": true}\n', "whole numbers"),
        (b'{"ask": "frames", "after": 1.5}\n', "whole numbers"),
        (b'{"ask": "frames", "every": -1}\n', "seconds"),
        (b"x" * 10_000 + b"\n", "too long"),
    ],
)
async def test_questions_that_make_no_sense(question: bytes, complaint: str, tmp_path: Path) -> None:
    async with Dashboard(Director("simulated:1")).serve(tmp_path / "s") as path:
        assert complaint in (await ask(path, question))["error"]
        assert (await Remote(path).snapshot())["state"] == "new"


@pytest.mark.every_loop
async def test_many_viewers_come_and_go(clock: TestClock, tmp_path: Path) -> None:
    director = Director("simulated:1", clock=clock)
    dashboard = Dashboard(director)

    async def look(path: Path) -> None:
        async with aclosing(Remote(path).frames()) as frames:
            await take(frames, 3)

    async with dashboard.serve(tmp_path / "s") as path, director:
        await asyncio.gather(*[look(path) for _ in range(20)])


async def test_a_viewer_that_does_not_read_holds_nobody_up(clock: TestClock, tmp_path: Path) -> None:
    director = Director("simulated:8", clock=clock, slots=8)
    dashboard = Dashboard(director)
    async with dashboard.serve(tmp_path / "s") as path, director:
        reader, writer = await asyncio.open_unix_connection(path, limit=1)
        writer.write(b'{"ask": "frames"}\n')
        for _ in range(50):
            await asyncio.gather(*[director.submit(str) for _ in range(20)])
            clock.advance(1)
            await asyncio.sleep(0.002)
        async with aclosing(Remote(path).frames()) as frames:
            while (await take(frames, 1))[0].get("counts", {}).get("succeeded") != 1000:
                pass
        writer.close()
        await writer.wait_closed()
        del reader


@pytest.mark.every_loop
async def test_a_viewer_that_is_killed_leaves_no_word(clock: TestClock, tmp_path: Path) -> None:
    """Its socket is closed with frames unread in it, which the app is told as an error."""
    director = Director("simulated:1", clock=clock)
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with Dashboard(director).serve(tmp_path / "s") as path, director:
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as viewer:
                viewer.setblocking(False)
                viewer.connect(str(path))
                viewer.send(b'{"ask": "frames"}\n')
                await asyncio.sleep(0.03)
        await asyncio.sleep(0.03)
    gc.collect()
    await asyncio.sleep(0)
    assert said == []


async def test_what_a_viewer_says_after_its_question_is_not_kept(clock: TestClock, tmp_path: Path) -> None:
    director = Director("simulated:1", clock=clock)
    async with Dashboard(director).serve(tmp_path / "s") as path, director:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"ask": "frames"}\n')
        await reader.readline()
        tracemalloc.start()
        for _ in range(64):
            writer.write(bytes(2**16))
            await writer.drain()
            await reader.readline()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 2**21
        writer.close()
        await writer.wait_closed()


@pytest.mark.every_loop
async def test_viewers_are_told_when_the_app_goes(clock: TestClock, tmp_path: Path) -> None:
    director = Director("simulated:1", clock=clock)
    async with contextlib.AsyncExitStack() as stack:
        path = await stack.enter_async_context(Dashboard(director).serve(tmp_path / "s"))
        async with aclosing(Remote(path).frames()) as frames:
            await take(frames, 1)
            await stack.aclose()
            with pytest.raises(ConnectionError, match="the app has closed its socket"):
                await take(frames, 1000)
    with pytest.raises(ConnectionError, match="no app listens at"):
        await Remote(path).snapshot()


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_the_app_takes_the_socket_off(turns: int, tmp_path: Path) -> None:
    async def app() -> None:
        async with Dashboard(Director("simulated:1")).serve(tmp_path / "s"):
            await asyncio.Event().wait()

    task = asyncio.create_task(app())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not (tmp_path / "s").exists()


async def test_the_end_of_the_director_can_be_seen(clock: TestClock, tmp_path: Path) -> None:
    director = Director("simulated:1", clock=clock)
    async with Dashboard(director).serve(tmp_path / "s") as path:
        async with director:
            assert (await Remote(path).snapshot())["state"] == "open"
        assert (await Remote(path).snapshot())["state"] == "closed"


# ---- what other users have planted

MALLORY = 4203
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


def listening(path: Path, user: int = 0) -> int:
    """A process of a user that listens at a socket; to be killed."""
    ready, told = os.pipe()
    child = os.fork()
    if child:
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
        return child
    try:
        os.setgid(user)
        os.setuid(user)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        os.write(told, b"x")
        signal.pause()
    finally:
        os._exit(1)


@as_root
@pytest.mark.parametrize(
    ("planted", "owner", "mode", "is_seen"),
    [
        ("a folder of root", 0, 0o700, True),
        ("a folder that others can read", 0, 0o755, True),
        ("a folder of another user", MALLORY, 0o700, False),
        ("a folder that others can write to", 0, 0o777, False),
        ("a folder like /tmp", 0, 0o1777, False),
        ("a folder that a group can write to", 0, 0o770, False),
        ("a folder below one of another user", 0, 0o700, False),
        ("a folder below one that others can write to", 0, 0o700, False),
        ("a link", 0, 0o700, False),
        ("a socket of another user", 0, 0o700, False),
        ("a socket at which another user listens", 0, 0o700, False),
        ("a link to a socket", 0, 0o700, False),
    ],
)
def test_root_sees_only_what_no_other_user_can_have_planted(
    planted: str, owner: int, mode: int, is_seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tmp_path / "above"
    folder = above / "director"
    folder.mkdir(parents=True)
    tmp_path.chmod(0o755)
    path = folder / "1.sock"
    other = tmp_path / "elsewhere"
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    is_theirs = planted == "a socket at which another user listens"
    child = listening(
        other / "s" if is_theirs or planted == "a link to a socket" else path, MALLORY if is_theirs else 0
    )
    try:
        if is_theirs:
            (other / "s").rename(path)
            os.chown(path, 0, 0)
        elif planted == "a link to a socket":
            path.symlink_to(other / "s")
        elif planted == "a socket of another user":
            os.chown(path, MALLORY, MALLORY)
        elif planted == "a link":
            folder.rename(tmp_path / "real")
            folder.symlink_to(tmp_path / "real")
        elif "below" in planted:
            os.chown(above, MALLORY if "another" in planted else 0, 0)
            above.chmod(0o700 if "another" in planted else 0o777)
        if planted != "a link":
            os.chown(folder, owner, owner)
            folder.chmod(mode)
        monkeypatch.setattr(_places, "_folders", lambda: [folder])
        assert [each for each in _places.known_paths() if _places.is_open(each)] == ([path] if is_seen else [])
        assert _places.is_open(path, named=True), "who names it sees it"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_root_looks_into_no_folder_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr("os.getuid", lambda: 0)
    looked = {str(folder) for folder in _places._folders()}
    own = f"{tempfile.gettempdir()}/director-0"
    assert looked == {"/run/user/7/director", "/run/user/0/director", "/run/director", own}
