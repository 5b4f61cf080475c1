"""`Director(server=...)`: what its server process gets, and what can't be had with one."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._untrusted.arguments import file_name
from director._untrusted.numbers import seconds
from director._untrusted.objects import describe, provides, repr_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._client.backend import ServedDirector
    from director._runtime.backend import Backend
    from director._scheduler.policy import SchedulingPolicy
    from director._system.clock import Clock
    from director.events import Hook


class ServerArguments:
    """Checks the arguments of a Director that has a server, and opens it.

    Raises:
        TypeError: `name` is no `str`, or `linger` no number.
        ValueError: Something that can't be had with a server.
    """

    def __init__(
        self,
        name: str,
        linger: float,
        shared: str | None,
        clock: Clock | None,
        hooks: tuple[Hook, ...],
        **arguments: Any,
    ) -> None:
        self.name = file_name("server", name)
        if shared is not None:
            raise ValueError("server= and shared= exclude each other: with a server there is one owner of the devices")
        if clock is not None:
            raise ValueError("clock= can't be given with server=: time limits count in several processes")
        executor = arguments["executor"]
        if executor not in ("thread", "process"):
            raise ValueError(
                f'with server= the executor is "thread" or "process", not {repr_of(executor, 200)}: an Executor object '
                "would have to live in the server process"
            )
        if any(provides(hook, "around_call") for hook in hooks):
            raise ValueError(
                "a call hook runs beside the call, which is in the server process with server=. That makes the "
                "spans of director.otel without a hook"
            )
        for argument, value in arguments.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                raise ValueError(
                    f"{argument} can't be sent to the server process: {describe(error)}. Give plain values"
                ) from error
        self.linger = seconds("server_linger", linger, zero=True)
        self.arguments = arguments
        self._dashboards: list[str] = []  # the paths of the sockets that the server opens
        self._backend: ServedDirector | None = None  # the last one

    def show(self, path: str) -> None:
        """Have the server open the socket of a dashboard, and each that comes after it."""
        if path not in self._dashboards:
            self._dashboards.append(path)
            if self._backend is not None:
                self._backend.show(path)

    async def open(
        self, policy: SchedulingPolicy, hooks: tuple[Hook, ...], clock: Clock, loop_lost: Callable[[], None]
    ) -> Backend:
        """Find the server or start it; see `Connector.connect` for what is raised."""
        from director._client.backend import ServedDirector  # few Directors have a server
        from director._client.connector import Connector

        connector = Connector(self.name, self.linger, self.arguments)
        link, facts = await connector.connect()
        backend = self._backend = ServedDirector(connector, link, facts, hooks, clock, policy, loop_lost)
        for path in self._dashboards:
            backend.show(path)
        return backend
