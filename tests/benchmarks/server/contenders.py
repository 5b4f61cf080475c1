"""Directors whose devices are in a server process, beside one without."""

from __future__ import annotations

import os
import tempfile
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from director import Director
from director.cli._bench.contenders import Contender, OpenContender
from director.cli._bench.processes import DIRECTOR_PROCESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FOLDER = "DIRECTOR_RUNTIME_DIR"
NAME = "benchmark"


@contextmanager
def folder_of_servers() -> Iterator[str]:
    """A folder of its own for sockets, so that no server of before is found."""
    before = os.environ.get(FOLDER)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        try:
            yield folder
        finally:
            del os.environ[FOLDER]
            if before is not None:
                os.environ[FOLDER] = before


@asynccontextmanager
async def _served(slots: int, executor: str) -> AsyncIterator[OpenContender]:
    options = {"executor": executor, "server": NAME, "server_linger": 0.0, "max_queue": None}
    with folder_of_servers():
        async with Director(f"cpu:{slots}", **options) as director:  # type: ignore[arg-type]
            yield OpenContender(director.submit, director.run)


THREADS = Contender("director, server with threads", partial(_served, executor="thread"))
PROCESSES = Contender("director, server with processes", partial(_served, executor="process"))
EVERYBODY = (DIRECTOR_PROCESS, THREADS, PROCESSES)
