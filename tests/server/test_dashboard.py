"""The dashboard of a server process: one for all applications, wherever it is looked at."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dashboard.conftest import Browser, take
from harness import served

from director import Director, JobState, QueueFull
from director.cli._top.find import find_app
from director.dashboard import Dashboard
from director.dashboard._source import Remote
from server.conftest import PATIENCE, server_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where `director top` looks, with a short path: the address of a Unix socket has 108 bytes at most."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="director-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setattr("director.dashboard._socket_paths._folders", lambda: [Path(folder, "director")])
        yield Path(folder, "director")


async def shown(path: Path, holds: Callable[[dict[str, Any]], object] = lambda _: True) -> dict[str, Any]:
    """What the socket says, once that holds: the server opens it when it has read that an application wants it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if holds(seen := await Remote(path).snapshot()):
                    return seen
            except ConnectionError:
                pass
            await asyncio.sleep(0.002)


@pytest.fixture
async def open_shown(make: Make) -> Callable[..., Awaitable[tuple[Director, Dashboard]]]:
    """Opens an application that has a dashboard, and is shown."""

    async def open_one(**options: Any) -> tuple[Director, Dashboard]:
        director = await make(**options)
        dashboard = Dashboard(director)
        async with dashboard.serve() as path:
            await shown(path)
        return director, dashboard

    return open_one


async def test_top_finds_one_server_with_the_jobs_of_all_its_applications(
    open_shown: Any, sockets: Path, hold: Callable[[], Holder]
) -> None:
    (one, _), (two, _) = await open_shown(name="web"), await open_shown(name="web")
    holder = hold()
    await one.run(served.add, 1, 2)
    await two.run(served.add, 3, 4)
    held = two.submit(served.hold, holder.path)
    await holder.begun()
    waiting = one.submit(served.add, 5, 6)

    assert (one.server, Director("simulated:1").server) == ("s", None)
    path = await find_app(None)
    assert path == sockets / "server-s.sock"
    for name in ("s", "server s", str(server_of(one))):
        assert await find_app(name) == path
    seen = await shown(path, lambda seen: seen["counts"]["queued"] == 1)
    assert (seen["name"], seen["pid"]) == ("server s", server_of(one))
    assert seen["counts"] == {"queued": 1, "running": 1, "succeeded": 2, "failed": 0, "cancelled": 0, "rejected": 0}
    assert [job["name"] for job in seen["running"]] == ["hold"]
    assert [(each["name"], each["jobs"]) for each in seen["waiting"]] == [("add", 1)]
    holder.let_go()
    await asyncio.wait_for(asyncio.gather(held, waiting), PATIENCE)


async def test_the_page_of_each_application_shows_the_server(open_shown: Any) -> None:
    (one, page_one), (_, page_two) = await open_shown(), await open_shown()
    async with aclosing(page_one._source.frames()) as frames:
        (whole,) = await take(frames, 1)
    await one.run(served.add, 1, 2)

    for page in (page_one, page_two):
        seen = (await Browser(page).get("/snapshot")).json()
        assert (seen["pid"], seen["counts"]["succeeded"]) == (server_of(one), 1)
        assert [row["name"] for row in seen["functions"]] == ["add"]
        answer = await Browser(page).get(f"/events?after={whole['number']}", leave_after=1)
        assert "identity" not in answer.frames()[0], "a page goes on whichever worker answers"


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_failure_is_shown_as_what_the_users_code_has_raised(open_shown: Any, executor: str) -> None:
    director, dashboard = await open_shown(executor=executor)
    with pytest.raises(served.Odd):
        await director.run(served.fail, "no file")

    (failure,) = (await shown(dashboard._source._path, lambda seen: seen["failures"]))["failures"]
    assert (failure["error"], failure["name"]) == ("harness.served.Odd", "fail")
    example: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE):
        while not example.get("traceback"):  # a thread writes it
            (example,) = (await dashboard._source.failure(failure["failure"]))["examples"]
    assert example["message"] == "(1, 'no file')"
    assert "served.py" in example["traceback"]
    assert "Odd: (1, 'no file')" in example["traceback"]


async def test_what_applications_refuse_is_shown(open_shown: Any, hold: Callable[[], Holder]) -> None:
    director, dashboard = await open_shown(max_queue=0)
    holder = hold()
    held = director.submit(served.hold, holder.path)
    await holder.begun()
    await until(lambda: held.state is JobState.RUNNING)
    before = (await dashboard.snapshot())["counts"]["rejected"]
    for _ in range(3):
        with pytest.raises(QueueFull):
            director.submit(served.add, 1, 1)

    seen = await dashboard.snapshot()
    assert (before, seen["counts"]["rejected"], seen["last_minute"]["rejected"]) == (0, 3, 3)
    holder.let_go()
    await asyncio.wait_for(held, PATIENCE)


async def test_the_next_server_has_the_socket_of_one_that_was_killed(open_shown: Any) -> None:
    director, dashboard = await open_shown()
    killed = server_of(director)
    os.kill(killed, signal.SIGKILL)

    path = dashboard._source._path
    seen = await shown(path, lambda seen: seen["pid"] != killed)
    assert seen["pid"] == server_of(director)
    await director.close()
    await until(lambda: not path.exists())
    with pytest.raises(ConnectionError, match="no app listens"):
        await dashboard.snapshot()


async def test_a_dashboard_that_is_made_before_the_start_and_one_with_a_path(make: Make, sockets: Path) -> None:
    director = Director("simulated:1", server="s", server_linger=0.0)
    dashboard = Dashboard(director)
    own = sockets.parent / "own.sock"
    async with dashboard.serve(own) as path, dashboard.serve() as usual, director:
        assert (path, usual) == (own, sockets / "server-s.sock")
        assert (await shown(own))["pid"] == (await shown(usual))["pid"] == server_of(director)
        assert own.stat().st_mode & 0o777 == 0o600
        server = server_of(director)
    await until(lambda: not own.exists() and not usual.exists())
    await make()  # waits for the end of the server
    assert server != os.getpid()


async def test_a_socket_that_cannot_be_opened_is_a_warning_in_the_application(
    make: Make, sockets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    director = await make()
    (sockets.parent / "file.sock").write_text("not a socket")
    async with Dashboard(director).serve(sockets.parent / "file.sock"):
        await until(lambda: "won't find the server process 's'" in caplog.text)
    assert (sockets.parent / "file.sock").read_text() == "not a socket"
    assert await director.run(served.add, 1, 2) == 3


async def test_a_server_without_a_dashboard_opens_no_socket(make: Make, sockets: Path) -> None:
    director = await make()
    assert await director.run(served.add, 1, 2) == 3
    assert not os.path.exists(sockets)  # noqa: ASYNC240, PTH110 - nobody waits
