"""Server processes, which are gone when a test is over."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Director

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE = 30.0  # seconds


class Holder:
    """A call that waits in the server until it is let go."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)

    async def begun(self) -> None:
        """Wait until it has begun."""
        await appears(Path(f"{self.path}.begun"))

    def let_go(self) -> None:
        """Have it return."""
        threading.Thread(target=self._open, daemon=True).start()

    def _open(self) -> None:
        with Path(self.path).open("wb"):
            pass


async def appears(path: Path) -> None:
    """Wait until a file is there."""
    await until(path.exists)


async def until(holds: Callable[[], object]) -> None:
    """Wait until something that another process does has happened."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sockets are."""
    place = tmp_path / "run"
    monkeypatch.setenv("DIRECTOR_RUNTIME_DIR", str(place))
    return place


@pytest.fixture
async def make(runtime_dir: Path) -> AsyncIterator[Callable[..., Awaitable[Director]]]:
    """Open Directors with a server; in the end they are closed, and the servers have ended."""
    opened: list[Director] = []
    servers: set[int] = set()

    async def open_one(devices: Any = "simulated:1", **options: Any) -> Director:
        director = Director(devices, **{"server": "s", "server_linger": 0.0, **options})
        await director.start()
        opened.append(director)
        servers.add(server_of(director))
        return director

    yield open_one
    for pid in servers - {-1}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)  # a test that failed halfway may have stopped it
    for director in opened:
        if director.state.value != "closed":
            servers.add(server_of(director))
        await asyncio.wait_for(director.close(0), PATIENCE)
    for pid in servers:
        await until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]


def server_of(director: Director) -> int:
    """The process that has its devices."""
    backend: Any = director._runtime
    link = None if backend is None else backend.queue.link
    return -1 if link is None else int(link.pid)


@pytest.fixture
def hold(tmp_path: Path) -> Callable[[], Holder]:
    """Makes calls that wait."""
    numbers = iter(range(100))
    return lambda: Holder(tmp_path / f"pipe{next(numbers)}")
