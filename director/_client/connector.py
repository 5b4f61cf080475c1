"""Connects an application to the server process with a name, and agrees on the Director's arguments with it."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from director._client.link import Link
from director._client.starter import start
from director._ipc.exceptions import error_of
from director._ipc.server.body import Body, loaded, plain_content
from director._ipc.server.peer import Kind
from director._ipc.sharing.server_socket import connect
from director._system.threads import call_once
from director._untrusted.objects import describe

if TYPE_CHECKING:
    import socket
    from concurrent.futures import Future

    from director._device import Device
    from director._ipc.server.peer import Message
    from director._runtime.stats import Stats
    from director._system.clock import Clock

logger = logging.getLogger("director")
_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0  # seconds before another server is started once more; doubled each time
_PATIENCE = 30.0  # seconds without a server, after which the jobs that wait for one fail
_TRIES = 3  # a server that ends may take connections that it does not accept, and one that starts may be killed


class Facts:
    """What a server tells of itself.

    Args:
        places: The devices, with the number of their slots.
        is_per_slot: Whether each slot has replicas of its own.
        stats: A first snapshot.
    """

    def __init__(self, places: list[tuple[Device, int]], is_per_slot: bool, stats: Stats) -> None:
        self.places = places
        self.is_per_slot = is_per_slot
        self.stats = stats

    def devices(self) -> tuple[tuple[Device, ...], list[int]]:
        """The devices, and the number of slots of each."""
        return tuple(device for device, _ in self.places), [count for _, count in self.places]


class Connector:
    """Finds the server with a name, or starts it.

    Args:
        name: The name.
        linger: Seconds that a server stays when the last application has left.
        arguments: Those of the server's Director.
    """

    def __init__(self, name: str, linger: float, arguments: dict[str, Any]) -> None:
        self.name = name
        self._linger = linger
        self._arguments = arguments

    async def connect(self) -> tuple[Link, Facts]:
        """Connect.

        Cancellation: leaves no connection; a server that was started ends by itself.

        Raises:
            ValueError: The server was started with other arguments, or has another version of this package.
            DirectorError: It can't open its devices.
            RuntimeError: It has ended while it was started, or its folder can't be used.
            OSError: It can't be started.
        """
        for _ in range(_TRIES):
            starting = call_once("director:connect", partial(connect, self.name, self._start))
            try:
                connection = await asyncio.wrap_future(starting)
            except asyncio.CancelledError:
                starting.add_done_callback(_close)
                raise
            if connection is None:
                continue
            greeting = _Greeting(self.name)
            link = Link(connection, asyncio.get_running_loop(), greeting.take, greeting.lost)
            try:
                link.peer.send(Kind.HELLO, head=self._told(), content=plain_content(self._arguments))
                facts = await greeting.answer
            except BaseException:
                link.close()
                raise
            if facts is not None:
                link.pid = greeting.pid
                if greeting.counts is not None:
                    link.share(*greeting.counts)
                return link, facts
        raise RuntimeError(f"the server process {self.name!r} ends while it starts: its output on stderr says why")

    async def connect_again(self, clock: Clock) -> tuple[Link, Facts]:
        """As `connect`, when a server was lost.

        What may pass, such as a system without processes or descriptors, is tried again for `_PATIENCE` seconds.
        """
        since, delay = clock.time(), _BACKOFF
        while True:
            try:
                return await self.connect()
            except (OSError, RuntimeError) as error:
                if clock.time() - since > _PATIENCE:
                    raise
                logger.warning("no server process %r: %s. Tried again in %g s", self.name, describe(error), delay)
            pause = asyncio.get_running_loop().create_future()
            timer = clock.call_later(delay, partial(pause.set_result, None))
            try:
                await pause
            finally:
                timer.cancel()
            delay = min(2 * delay, _LONGEST_BACKOFF)

    def _told(self) -> tuple[tuple[str, bytes], ...]:
        """What must be the same in all applications."""
        told = {**self._arguments, "version": version("gpu-director"), "python": sys.version}
        return tuple((name, pickle.dumps(value)) for name, value in told.items())

    def _start(self, listener: Any, inode: int) -> None:
        start(self.name, self._linger, listener, inode)


class _Greeting:
    """Waits for the first answer of a server: `None` if it ends without one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.answer: asyncio.Future[Facts | None] = asyncio.get_running_loop().create_future()
        self.counts: tuple[int, Body] | None = None
        self.pid = 0

    def take(self, _link: Link, messages: list[Message]) -> None:
        for message in messages:
            if self.answer.done():
                return
            content = message.content
            if message.kind == Kind.WELCOME and content is not None:
                self.pid = message.number
                self.answer.set_result(Facts(**loaded(content)))
            elif message.kind == Kind.REFUSED:
                self.answer.set_exception(ValueError(f"Director(server={self._name!r}): {message.head}"))
            elif message.kind == Kind.RAISED and content is not None:
                self.answer.set_exception(error_of(loaded(content), "the server")[0])
            elif message.kind == Kind.COUNTS and isinstance(content, Body):
                self.counts = message.head, content

    def lost(self, _link: Link) -> None:
        if not self.answer.done():
            self.answer.set_result(None)


def _close(starting: Future[socket.socket | None]) -> None:
    """Close the connection of a start that was cancelled."""
    if not starting.cancelled() and starting.exception() is None and (connection := starting.result()) is not None:
        connection.close()
