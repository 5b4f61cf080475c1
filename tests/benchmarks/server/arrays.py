"""A large array to another process and back: through a server, and pickled over a socket."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import time
from typing import TYPE_CHECKING

from benchmarks.server.contenders import PROCESSES, THREADS
from director.cli._bench.calls import Array
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from director.cli._bench.contenders import Contender

SIZE = 20_000_000  # bytes
SOCKET = "pickle over a unix socket"
FIGURE = "there and back"


def _echo(connection: Connection) -> None:
    """Unpickle what comes, and send it back, until there is no more."""
    try:
        while True:
            value = pickle.loads(connection.recv_bytes())
            connection.send_bytes(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except EOFError:
        pass


def over_socket(count: int, size: int = SIZE) -> float:
    """Milliseconds for an array there and back, pickled into the stream."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()  # a pair of unix sockets
    process = context.Process(target=_echo, args=(theirs,))
    process.start()
    theirs.close()
    array = Array(bytearray(size))

    def carry() -> None:
        mine.send_bytes(pickle.dumps(array, pickle.HIGHEST_PROTOCOL))
        assert len(pickle.loads(mine.recv_bytes()).memory) == size

    try:
        carry()
        began = time.perf_counter()
        for _ in range(count):
            carry()
        return (time.perf_counter() - began) / count * 1e3
    finally:
        mine.close()
        process.join()


async def through_server(contender: Contender, count: int, size: int = SIZE) -> float:
    """The same by a job that gives its argument back."""
    array = Array(bytearray(size))
    async with contender.open(1) as seat:
        for _ in range(2):
            await seat.call(array)
        began = time.perf_counter()
        for _ in range(count):
            await seat.call(array)
        return (time.perf_counter() - began) / count * 1e3


def measure(effort: Effort) -> Sheet:
    """20 MB there and back."""
    sheet = Sheet()
    count = effort.pick(10, 3)
    for name in turns((SOCKET, THREADS, PROCESSES), rounds=effort.pick(5, 3)):
        if isinstance(name, str):
            sheet.add(name, FIGURE, "ms", over_socket(count))
        else:
            sheet.add(name.name, FIGURE, "ms", asyncio.run(through_server(name, count)))
    return sheet
