"""The server: one Director, and what the applications share. On the event loop only."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import struct
from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from director._api.director import Director
from director._ipc.server.body import Body, loaded, plain_content
from director._ipc.server.peer import Kind
from director._ipc.server.queue_counts import APPLICATIONS, SIZE, QueueCounts
from director._jobs.current import here
from director._jobs.options import BatchRule
from director._server.device_turns import DeviceTurns
from director._server.lease import ServedLease
from director._server.models import ServedModels
from director._server.session import Session
from director._server.shown import ShownDirector
from director._system.forks import watch
from director._untrusted.objects import describe
from director.events import JobProgressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._ipc.server.body import Content
    from director._ipc.server.job_head import FunctionHead
    from director._ipc.sharing.lock_file import Folder
    from director._jobs.job import Job, ScheduledJob
    from director._runtime.backend import Backend
    from director._runtime.lifecycle import OpenDirector
    from director._runtime.stats import Stats
    from director._scheduler.slots import Slot
    from director._server.lifetime import Lifetime
    from director._server.shown import Dashboards
    from director._system.clock import Clock
    from director.events import Event

logger = logging.getLogger("director")
_PEERCRED = struct.Struct("3i")
_STATS_EVERY = 0.2  # seconds between two snapshots for the applications
# Seconds from the submission of a job until its application is told that it runs, if there was a slot for it. Of a call
# that has ended by then the result alone is sent, and neither process wakes up for the start.
_TOLD_WITHIN = 0.002


class Host:
    """Accepts applications, and has the Director that they share.

    Args:
        name: The server's.
        listener: The listening socket.
        lifetime: Decides when the server ends.
        linger: Seconds that models stay without an application that names them.
        home: The folder of the server's files.
        dashboards: Makes what shows the Director to people.
    """

    wants = (JobProgressed,)
    """The events that `__call__` takes, as a hook of the Director."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        lifetime: Lifetime,
        linger: float,
        home: Folder,
        dashboards: Callable[[ShownDirector], Dashboards],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._make_dashboards = dashboards
        self._dashboards: Dashboards | None = None
        self._showing: set[asyncio.Task[None]] = set()
        self._listener = listener
        self._lifetime = lifetime
        self._home = home
        self._turns: DeviceTurns
        self._sessions: set[Session] = set()
        self._director: Director | None = None
        self._opened_at = 0.0
        self._arguments: dict[str, bytes] = {}
        self._opening: asyncio.Task[None] | None = None
        self._rules: WeakValueDictionary[Any, BatchRule] = WeakValueDictionary()
        self.models = ServedModels(self._loop, linger)
        self._sources: dict[str, bytes] = {}  # by module: what the first application has imported
        self._jobs: dict[int, tuple[Session, int]] = {}  # by id: whose job, and its number there
        self._started: set[Slot] = set()  # added by their threads: a call has begun, which the event loop has not seen
        self._is_looking = False  # the event loop will see, `_TOLD_WITHIN` at the latest
        self._told: dict[int, int] = {}  # by number of a slot: the first job of its last call that was told
        self._stats_timer: asyncio.TimerHandle | None = None
        self._counts, self._counts_file = QueueCounts.create()
        self._rows = [*range(1, 1 + APPLICATIONS)]  # of it, that are free: a heap
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self.accept)
        watch(self._be_forked)

    # ---- for sessions

    @property
    def backend(self) -> Backend:
        """The open Director."""
        assert self._director is not None
        return self._director._backend

    @property
    def clock(self) -> Clock:
        """Its clock."""
        assert self._director is not None
        return self._director._clock

    @property
    def is_empty(self) -> bool:
        """Whether no application is connected."""
        return not self._sessions

    def welcome(self, session: Session, head: tuple[Any, ...], content: Content) -> None:
        """An application has told the arguments of its Director."""
        arguments: dict[str, bytes] = dict(head)
        if self._opening is None:
            self._arguments = arguments
            self._opening = self._loop.create_task(self._open(content), name="director:open")
        if different := [name for name in arguments if arguments[name] != self._arguments.get(name)]:
            theirs, mine = _shown(self._arguments, different), _shown(arguments, different)
            session.refuse(f"its server process was started with {theirs}, and this one asks for {mine}")
            return
        self._opening.add_done_callback(lambda opening: self._greet(session, opening))

    def show(self, path: str) -> None:
        """An application has a dashboard: open a socket that shows the Director, unless it is open."""
        showing = self._loop.create_task(self._open_dashboard(path), name="director:dashboard")
        self._showing.add(showing)
        showing.add_done_callback(self._showing.discard)

    def end_waiting(self, jobs: set[ScheduledJob[Any]]) -> None:
        """An application closes: fail those of its jobs that wait."""
        cast("OpenDirector", self.backend).end_waiting(jobs)

    def surround(self) -> None:
        """A model with `around` is used."""
        assert self._director is not None
        self.backend.surround(self._director._around)

    def add(self, job: ScheduledJob[Any], session: Session, number: int) -> None:
        """A job was queued."""
        self._jobs[job.id] = session, number
        if not self._turns.is_alone:
            self._turns.note_work()
        self._note_change()
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(_TOLD_WITHIN, self.look_at_started)

    def forget(self, job: Job[Any]) -> None:
        """A job is over."""
        self._jobs.pop(job.id, None)
        if not self._turns.is_alone:
            self._turns.note_end()
        self._note_change()

    def left(self, session: Session) -> None:
        """An application has gone."""
        if session not in self._sessions:
            return
        self._sessions.discard(session)
        self._counts.clear(session.row)
        heappush(self._rows, session.row)
        self._lifetime.look()

    def rule(self, reference: bytes, head: FunctionHead) -> BatchRule:
        """The batch rule of a function, the same for all applications that name it."""
        assert head.rule is not None
        key = reference, head.name, tuple(sorted(head.rule.items()))
        rule = self._rules.get(key)
        if rule is None:
            rule = self._rules[key] = BatchRule(name=head.name, **head.rule)
        return rule

    def is_stale(self, module: str, source: bytes) -> bool:
        """Whether this process has another version of a module: then it takes no more applications."""
        if self._sources.setdefault(module, source) == source:
            return False
        self._lifetime.retire()
        return True

    # ---- as a hook

    def __call__(self, event: Event) -> None:
        assert isinstance(event, JobProgressed)
        if (found := self._jobs.get(event.job)) is not None:
            session, number = found
            session.progressed(number, event.progress)

    def slot_started(self, slot: Slot) -> None:
        """On the thread of a slot: a call begins. It wakes the event loop unless that looks soon anyway."""
        self._started.add(slot)
        if not self._is_looking:
            self._is_looking = True
            self.backend.call(self.look_at_started)

    def attempt_failed(self, job: ScheduledJob[Any], slot: Slot, error: BaseException, is_counted: bool) -> None:
        """An attempt on `slot` has failed, and another one follows: its application is told."""
        self._told.pop(slot.number, None)  # the next one may begin there
        if (found := self._jobs.get(job.id)) is not None:
            session, number = found
            session.retried(number, job, slot, error, is_counted)

    def look_at_started(self) -> None:
        """Have applications told of the calls that run; of one that has ended its outcome says that it had begun."""
        self._is_looking = False  # first: a call that begins from now on is seen the next time
        loading: list[Slot] = []
        while self._started:
            slot = self._started.pop()
            jobs = slot.current_jobs()
            if not jobs or self._told.get(slot.number) == jobs[0].id:
                continue
            if isinstance(lease := jobs[0].fn, ServedLease) and not lease.has_begun:
                loading.append(slot)  # it is told when it has
                continue
            self._told[slot.number] = jobs[0].id
            for job in jobs:
                if job.started_at is not None and not job.done() and (found := self._jobs.get(job.id)) is not None:
                    session, number = found
                    session.started(number, slot.number, job.started_at)
        self._started.update(loading)

    # ----

    def relay(self, record: dict[str, Any]) -> None:
        """From any thread: a record of logging goes to the application whose job has made it, else to all."""
        job = None if here.running is None else here.running.job()
        found = None if job is None else self._jobs.get(job.id)
        content = plain_content(record)
        for session in self._welcome() if found is None else [found[0]]:
            session.peer.send(Kind.LOGGED, content=content)

    async def close(self) -> None:
        """Close the Director."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        if self._stats_timer is not None:
            self._stats_timer.cancel()
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await asyncio.gather(*self._showing)
        if self._dashboards is not None:
            await self._dashboards.close()
        if self._director is not None:
            self._turns.close()
            await self._director.close(0)

    def accept(self) -> None:
        """Accept the applications that have connected."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                logger.exception("an application could not be accepted")
                return
            pid, user, _ = _PEERCRED.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
            )
            if user != os.geteuid():
                logger.error("process %d of user %d is refused: the server belongs to user %d", pid, user, os.geteuid())
                connection.close()
                continue
            if not self._rows:
                most = APPLICATIONS
                logger.error("process %d is refused: %d applications are connected, and no more can be", pid, most)
                connection.close()
                continue
            self._counts.open(row := heappop(self._rows))
            self._sessions.add(Session(self, connection, self._loop, pid, row))
            self._lifetime.look()

    async def _open(self, content: Content) -> None:
        arguments = loaded(content)
        director = Director(**arguments, hooks=(self,), name=f"server {self._name}")
        await director.start()
        lender = cast("OpenDirector", director._backend)
        self._turns = DeviceTurns(self._home, lender.device_slots, lender)
        try:
            await self._turns.begin()
        except BaseException:
            await director.close(0)
            raise
        self._director, self._opened_at = director, director._clock.time()

    def _greet(self, session: Session, opening: asyncio.Task[None]) -> None:
        if not session.peer.is_open:
            return
        if opening.cancelled():
            session.leave()
            return
        if (error := opening.exception()) is not None:
            session.refuse_with(error)
            self._opening = None  # the next application tries again
            return
        places = [(place.device, len(place.slots)) for place in self.backend.device_slots]
        facts = {"places": places, "is_per_slot": self.backend.is_per_slot, "stats": self._stats()}
        session.is_welcome = True
        session.peer.send(Kind.COUNTS, head=session.row, content=Body(None, os.dup(self._counts_file), SIZE))
        session.peer.send(Kind.WELCOME, os.getpid(), content=plain_content(facts))

    def _be_forked(self, _origin: int) -> None:
        """In a process that a job has forked: applications must not connect to that when this one has ended."""
        self._listener.close()

    def _note_change(self) -> None:
        """Something has changed: send a snapshot soon."""
        if self._stats_timer is None:
            self._stats_timer = self._loop.call_later(_STATS_EVERY, self._send_stats)

    def _send_stats(self) -> None:
        self._stats_timer = None
        if self._jobs:
            self._note_change()
        content = plain_content(self._stats())
        for session in self._welcome():
            session.peer.send(Kind.STATS, content=content)

    def _stats(self) -> Stats:
        return self._turns.tell(self.backend.stats())

    def _all_stats(self) -> Stats:
        """As the applications see it: with the jobs that they have refused."""
        stats = self._stats()
        return replace(stats, rejected=stats.rejected + self._counts.refused())

    async def _open_dashboard(self, path: str) -> None:
        try:
            if self._dashboards is None:
                assert self._director is not None
                shown = ShownDirector(self._director, self._opened_at, self._all_stats)
                self._dashboards = self._make_dashboards(shown)
            await self._dashboards.open(path)
        except Exception as error:  # noqa: BLE001 - the files of the package may have been replaced since the start
            logger.warning("`director top` won't find the server process %r: %s", self._name, describe(error))

    def _welcome(self) -> list[Session]:
        return [session for session in [*self._sessions] if session.is_welcome]


def _shown(arguments: dict[str, bytes], names: list[str]) -> str:
    return ", ".join(f"{name}={_value(arguments.get(name))}" for name in names)


def _value(pickled: bytes | None) -> str:
    try:
        return "nothing" if pickled is None else repr(pickle.loads(pickled))[:200]  # noqa: S301 - of this user's processes
    except Exception as error:  # noqa: BLE001 - its class may be in a module that is not here
        return f"? ({describe(error)})"
