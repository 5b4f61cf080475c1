"""One connection to a server process, and the calls of ours that it has."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from director._ipc.server.body import Body
from director._ipc.server.job_head import JobParts
from director._ipc.server.peer import Kind, Peer
from director._ipc.server.queue_counts import QueueCounts

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from director._client.encoding import Named, PackedJob
    from director._ipc.server.job_head import JobHead
    from director._ipc.server.peer import Message
    from director._jobs.job import ScheduledJob


_REMEMBERED = 256  # options


class Link:
    """Sends jobs to one server, and knows which of them are not over.

    Args:
        connection: The socket.
        loop: The event loop.
        take: Called with this and the messages that have arrived.
        lost: Called with this when the server has gone.
    """

    def __init__(
        self,
        connection: socket.socket,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[Link, list[Message]], None],
        lost: Callable[[Link], None],
    ) -> None:
        self.calls: dict[int, ScheduledJob[Any]] = {}  # by number: sent, and not over there
        self.pid = 0  # of the server
        self.take = take
        self.lost = lost
        self.not_sent: Callable[[Link, int, OSError], None] = lambda _link, _number, _problem: None
        """Called with this, the number of a job whose arguments could not be copied, and the error."""
        self.peer = Peer(
            connection,
            loop,
            lambda messages: self.take(self, messages),
            lambda: self.lost(self),
            lambda number, problem: self.not_sent(self, number, problem),
        )
        self._told: set[int] = set()  # numbers of functions and models
        self._options: dict[JobHead, int] = {}
        self._option_numbers = count()
        self._counts: QueueCounts | None = None
        self._row = 0

    def share(self, row: int, counts: Body) -> None:
        """The memory in which each application counts its jobs, and our row of it."""
        self._counts, self._row = QueueCounts(counts.descriptor), row

    def send(self, job: ScheduledJob[Any], packed: PackedJob) -> None:
        """Send a job.

        Raises:
            ValueError: Its options are too long.
            OSError: There is no memory or no descriptor left for its function or model.
        """
        self.calls[job.id] = job  # first: if this is not the event loop's thread, the answer may come before it returns
        try:
            for named in packed.named:
                self._tell(named)
            _, head, key, cost, stream, content = packed
            # A large content is sent later than jobs after it, when its options may have lost their number.
            options = tuple(head) if isinstance(content, Body) else self._options_number(head)
            if stream is None and key is None and not cost and type(options) is int:
                self.peer.send(Kind.SUBMIT, job.id, options, content)
            else:
                self.peer.send(Kind.SUBMIT, job.id, tuple(JobParts(options, key, cost, stream)), content)
        except BaseException:
            self.calls.pop(job.id, None)
            raise

    def _options_number(self, head: JobHead) -> int:
        """The number of options, which are sent when they are new.

        A finalizer may submit a job within this: no other options get the number before half of all have followed.
        """
        number = self._options.get(head)
        if number is None:
            if len(self._options) >= _REMEMBERED:
                self._options.clear()
            number = next(self._option_numbers) % (2 * _REMEMBERED)
            self.peer.send(Kind.OPTIONS, number, tuple(head))
            self._options[head] = number
        return number

    def cancel(self, job: ScheduledJob[Any]) -> None:
        """The job is over for its caller. The server says when its call has ended."""
        if job.id in self.calls:
            self.peer.send(Kind.CANCEL, job.id)

    def ask(self, kind: int, number: int, model: Named) -> None:
        """Ask the server about a model, or have it unload one; ANSWERED with this number answers."""
        self._tell(model)
        self.peer.send(kind, number, model.number)

    def forget(self, number: int) -> None:
        """A function or model was collected: no job names it any more."""
        if number in self._told:
            self._told.remove(number)
            self.peer.send(Kind.FORGET, number)

    def begun(self) -> list[ScheduledJob[Any]]:
        """Jobs whose calls have begun, and not ended."""
        return [job for job in self.calls.values() if job.started_at is not None]

    def note_counts(self, waiting: int, running: int) -> None:
        """Tell the other applications how many of our jobs wait, and how many run."""
        if self._counts is not None:
            self._counts.note(self._row, waiting, running)

    def read_counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many run, of all applications."""
        return (0, 0) if self._counts is None else self._counts.totals()

    def note_tenant(self, tenant: int, waiting: int) -> None:
        """Tell the other applications how many of our jobs wait of a tenant that has a bound."""
        if self._counts is not None:
            self._counts.note_tenant(self._row, tenant, waiting)

    def read_tenant(self, tenant: int) -> int:
        """How many of its jobs wait, of all applications."""
        return 0 if self._counts is None else self._counts.of_tenant(tenant)

    def note_refused(self, count: int) -> None:
        """Tell the other applications how many jobs we have refused."""
        if self._counts is not None:
            self._counts.note_refused(self._row, count)

    def read_refused(self) -> int:
        """How many jobs all applications have refused."""
        return 0 if self._counts is None else self._counts.refused()

    def close(self) -> None:
        """Close the connection: the server cancels what is left."""
        self.peer.close()

    def _tell(self, named: Named) -> None:
        if named.number not in self._told:
            self.peer.send(named.kind, named.number, named.head, named.content)
            self._told.add(named.number)
