"""Fairness between tenants by the device seconds they have used. Guarded by `scheduler`'s lock.

Deficit round robin for jobs whose cost is known only afterwards: each tenant has a counter of device seconds divided by
its weight, the lowest counter is served next, and what a job was charged at its start is corrected at its end. A tenant
that was idle starts at the lowest counter of the active ones: idle time earns no credit (start-time fair queueing,
Goyal, Vin and Cheng 1996). Counters only grow, so heaps over them may correct their keys lazily.
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush, heapreplace, nlargest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

_REMEMBERED = 512  # idle tenants that are remembered: those that have used most
_BEFORE = 2**62
_FORGET_AT = 2 * _REMEMBERED  # tenants before idle ones are forgotten


class Tenant:
    """One fairness key: what it has used, and what it has waiting and running."""

    __slots__ = ("_credit", "_mean", "_weight", "is_listed", "last_start", "name", "running", "used", "waiting")

    def __init__(self, name: Hashable, weight: float, last_start: int) -> None:
        self.name = name
        self.used = 0.0  # device seconds divided by the weight; never shrinks
        self.last_start = last_start  # sequence number of its last start: the tie-break
        self.waiting = 0
        self.running = 0
        self.is_listed = False  # in the heap of active tenants
        self._weight = weight
        self._mean = 0.0  # seconds of its recent jobs
        self._credit = 0.0  # charged too much in the past

    def charge(self) -> float:
        """A job starts: charge what the tenant's jobs usually take. Returns the seconds charged."""
        charged = max(0.0, self._mean - self._credit)
        self._credit = max(0.0, self._credit - self._mean)
        self.used += charged / self._weight
        self.running += 1
        return self._mean

    def settle(self, charged: float, seconds: float) -> None:
        """The job has taken `seconds`."""
        self.running -= 1
        self._mean = self._mean + (seconds - self._mean) / 8 if self._mean else seconds
        owed = seconds - charged - self._credit
        self._credit = max(0.0, -owed)
        self.used += max(0.0, owed) / self._weight

    @property
    def is_active(self) -> bool:
        """It has work."""
        return self.waiting > 0 or self.running > 0


class FairShare:
    """All tenants that have jobs or have to be remembered.

    Args:
        weights: Shares; 1 for those that are not named.
    """

    def __init__(self, weights: Mapping[Hashable, float]) -> None:
        self._weights = weights
        self.known: dict[Hashable, Tenant] = {}  # by name; written here only
        self._active: list[tuple[float, int, Tenant]] = []  # by counter, corrected lazily
        self._highest = 0.0
        self._served = 0.0  # the highest counter at which a tenant was served
        self._turns = itertools.count(1)
        self._newcomers = itertools.count(-_BEFORE)  # before all sequence numbers of starts
        self._forget_at = _FORGET_AT

    def __len__(self) -> int:
        return len(self.known)

    def begin(self, waiting: int) -> None:
        """The first job with a tenant arrives: the jobs without one, `waiting` of them, are a tenant from now on."""
        no_tenant = self.of(None)
        no_tenant.waiting = waiting
        if waiting:
            self._list(no_tenant)

    def get(self, name: Hashable) -> Tenant | None:
        """The tenant of that name, if it is known."""
        return self.known.get(name)

    def rank(self, name: Hashable) -> tuple[float, int]:
        """Sort key among the tenants, lowest first; equal for all while there are none."""
        tenant = self.known.get(name)
        return (0.0, -_BEFORE) if tenant is None else (tenant.used, tenant.last_start)

    def of(self, name: Hashable) -> Tenant:
        """The tenant of that name, made if it is unknown."""
        tenant = self.known.get(name)
        if tenant is None:
            tenant = self.known[name] = Tenant(name, self._weights.get(name, 1.0), next(self._newcomers))
        return tenant

    def enqueue(self, tenant: Tenant) -> None:
        """A job of it waits."""
        if tenant.is_active:
            tenant.waiting += 1
            return
        tenant.used = max(tenant.used, self._floor())
        tenant.waiting += 1
        self._list(tenant)
        if len(self.known) > self._forget_at:
            self._forget()

    def start(self, tenant: Tenant) -> float:
        """A job of it starts; returns the seconds charged."""
        tenant.last_start = next(self._turns)
        self._served = max(self._served, tenant.used)
        charged = tenant.charge()
        self._highest = max(self._highest, tenant.used)
        return charged

    def finish(self, tenant: Tenant, charged: float, seconds: float) -> None:
        """A job of it, charged with `charged` seconds, has taken `seconds`."""
        tenant.settle(charged, seconds)
        self._highest = max(self._highest, tenant.used)

    def _list(self, tenant: Tenant) -> None:
        if not tenant.is_listed:
            tenant.is_listed = True
            heappush(self._active, (tenant.used, next(self._turns), tenant))

    def _floor(self) -> float:
        """The lowest counter of the active tenants, where one that was idle starts; without any, the highest of all.

        At least the highest counter that was served: an active tenant may have been passed over for long, for its
        priority or its devices, and a newcomer at its counter would get all that the others have used since.
        """
        active = self._active
        while active:
            used, number, tenant = active[0]
            if not tenant.is_active:
                heappop(active)
                tenant.is_listed = False
            elif tenant.used > used:
                heapreplace(active, (tenant.used, number, tenant))
            else:
                return max(used, self._served)
        return self._highest

    def recount_waiting(self, names: Iterable[Hashable]) -> None:
        """Set the waiting counts: one for each time that a tenant is named. Only when there are tenants."""
        for tenant in self.known.values():
            tenant.waiting = 0
        for name in names:
            self.of(name).waiting += 1

    def recount_running(self, tenants: Iterable[Tenant]) -> None:
        """Set the running counts: one for each time that a tenant is given. After `recount_waiting`."""
        for tenant in self.known.values():
            tenant.running = 0
            tenant.is_listed = False
        for tenant in tenants:
            tenant.running += 1
        self._active = []
        for tenant in self.known.values():
            if tenant.is_active:
                self._list(tenant)

    def _forget(self) -> None:
        """Drop idle tenants that would start at the floor anyway, and of the others those that have used least.

        The bound is needed because the floor need not rise: with a thousand new tenants a second it never does.
        """
        floor = self._floor()
        active = [tenant for tenant in self.known.values() if tenant.is_active]
        owing = (tenant for tenant in self.known.values() if not tenant.is_active and tenant.used > floor)
        most = nlargest(_REMEMBERED, owing, key=lambda tenant: tenant.used)
        for tenant in most:
            tenant.is_listed = False
        self._active = [(tenant.used, next(self._turns), tenant) for tenant in active]
        heapify(self._active)
        self.known = {tenant.name: tenant for tenant in (*active, *most)}
        self._forget_at = max(_FORGET_AT, 2 * len(self.known))
