"""Room in the queue of the server, reserved by counts that all applications share. Guarded by the queue's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._client.encoding import plain
from director._ipc.server.queue_counts import tenant_number
from director.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._client.link import Link
    from director._jobs.job import ScheduledJob
    from director._scheduler.policy import SchedulingPolicy


class Room:
    """The jobs of this application that wait.

    A job is counted first, and then all are: of two applications that take the last place at the same time at least one
    sees the other. The server zeroes the counts of an application that is gone, however it went.

    Args:
        policy: The bounds.
        slots: How many slots the server has.
        retry_after: Seconds after which so many jobs will have begun; `None` while that is not known.
    """

    def __init__(self, policy: SchedulingPolicy, slots: int, retry_after: Callable[[int], float | None]) -> None:
        self.waiting: dict[int, ScheduledJob[Any]] = {}  # QUEUED, wherever; by number
        self._policy = policy
        self._slots = slots
        self._retry_after = retry_after
        self._unsent: set[int] = set()  # of these: no server has them yet
        self._link: Link | None = None
        self._refused = 0  # by this application
        self._refused_before = 0  # by all, as the last server knew while there is none
        self._tenants: dict[int, int] = {}  # by number of a tenant that has a bound: how many wait
        self._tenant_of: dict[int, int] = {}  # by number of the job

    def move(self, link: Link | None) -> None:
        """From now on the counts are those of the server behind `link`; `None`: there is none."""
        self._refused_before = self.refused()
        if self._link is not None and self._link.peer.is_open:
            self._link.note_counts(0, 0)
            for tenant in self._tenants:
                self._link.note_tenant(tenant, 0)
        self._link = link
        self.note()
        if link is not None:
            link.note_refused(self._refused)
            for tenant, waiting in self._tenants.items():
                link.note_tenant(tenant, waiting)

    def enter(self, job: ScheduledJob[Any]) -> None:
        """A job waits.

        Raises:
            ValueError: Its tenant is no plain value.
        """
        account = job.options.account
        if account is not None and self._policy.bound_of(account) is not None:
            tenant = self._tenant_of[job.id] = tenant_number(plain("tenant", account))
            self._note_tenant(tenant, 1)
        self._unsent.add(job.id)
        self.waiting[job.id] = job
        self.note()

    def sent(self, job: ScheduledJob[Any]) -> None:
        """The server has a job that waits, as before."""
        self._unsent.discard(job.id)

    def leave(self, job: ScheduledJob[Any]) -> bool:
        """A job does not wait any more; False if it did not."""
        if self.waiting.pop(job.id, None) is None:
            return False
        self._unsent.discard(job.id)
        if self._tenant_of and (tenant := self._tenant_of.pop(job.id, None)) is not None:
            self._note_tenant(tenant, -1)
        self.note()
        return True

    def refusal(self, job: ScheduledJob[Any]) -> QueueFull | None:
        """What a job is refused with that has entered; `None` if there is room for it.

        Jobs that free slots are about to take don't count. Each running job counts as a slot, so a slot in which a
        batch runs hides other free ones: then the count is too high rather than too low.
        """
        policy, link = self._policy, self._link
        bound, tenant = policy.max_queue, self._tenant_of.get(job.id)
        if bound is None and tenant is None:
            return None
        waiting, running = (0, self._slots) if link is None else link.read_counts()
        free = max(0, self._slots - running)
        others = max(len(self.waiting), waiting) - 1 - free
        if bound is not None and others >= bound:
            return QueueFull(bound, others, self._retry_after(others))
        if tenant is None:
            return None
        limit = policy.bound_of(job.options.account)
        own = max(self._tenants[tenant], 0 if link is None else link.read_tenant(tenant)) - 1
        if limit is None or own - free < limit:
            return None
        return QueueFull(limit, own, self._retry_after(own), job.options.tenant)

    def note_refusal(self) -> None:
        """Tell the other applications that a job was refused here."""
        self._refused += 1
        self._refused_before += 1
        if self._link is not None:
            self._link.note_refused(self._refused)

    def refused(self) -> int:
        """How many jobs all applications have refused."""
        return self._refused_before if self._link is None else self._link.read_refused()

    def note(self) -> None:
        """Tell the other applications how many of our jobs wait and run: after each change."""
        if (link := self._link) is not None:
            waiting = len(self.waiting)
            link.note_counts(waiting, max(0, len(link.calls) - (waiting - len(self._unsent))))

    def _note_tenant(self, tenant: int, by: int) -> None:
        tenants = self._tenants
        tenants.setdefault(tenant, 0)
        waiting = tenants[tenant] = tenants[tenant] + by  # no call between: a finalizer may come here meanwhile
        if not waiting:
            del tenants[tenant]
        if self._link is not None:
            self._link.note_tenant(tenant, waiting)
