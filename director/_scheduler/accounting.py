"""Charges device seconds to tenants and call times to functions. Guarded by `scheduler`'s lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._scheduler.costs import BatchSizeLimits, CostModel
from director._scheduler.slots import CallUsage

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._jobs.options import BatchRule
    from director._scheduler.queue.fair_share import FairShare
    from director._scheduler.slots import DeviceSlots, Slot


class Accounting:
    """Charges calls as they start and settles them as they end.

    Args:
        tenants: Charged as soon as there are any.
        discarded: Takes what may hold the last reference to a function, to be dropped without the lock.
    """

    __slots__ = ("_discarded", "_tenants", "costs", "limits", "unsettled")

    def __init__(self, tenants: FairShare, discarded: list[Any]) -> None:
        self._tenants = tenants
        self._discarded = discarded
        self.costs = CostModel()
        self.limits = BatchSizeLimits()
        self.unsettled = 0  # calls that have not ended

    def open(self, slot: Slot, jobs: list[ScheduledJob[Any]], is_resident: bool, now: float) -> None:
        """A call for `jobs` starts on `slot`; `is_resident`: its model is loaded there already."""
        rule, tenants = jobs[0].options.batch_rule, self._tenants
        extra = jobs[0].extras
        usage = slot.usage = CallUsage(
            now, slot.busy_seconds, rule, None if extra is None else extra.batch_key, len(jobs)
        )
        usage.is_typical = is_resident
        self.unsettled += 1
        if tenants.known:
            served = [tenants.of(job.options.account) for job in jobs]
            usage.tenants = [(tenant, tenants.start(tenant)) for tenant in served]

    def repair(self, slots: list[Slot]) -> None:
        """Rebuild the counts of calls that have not ended from the slots."""
        usages = [slot.usage for slot in slots if slot.usage is not None]
        self.unsettled = len(usages)
        self._tenants.recount_running(tenant for usage in usages for tenant, _ in usage.tenants)

    def counts(self, job: ScheduledJob[Any]) -> bool:
        """Whether the call of `job` is charged to a tenant or a function."""
        return job.options.batch_rule is not None or bool(self._tenants.known)

    def settle(self, slot: Slot) -> None:
        """The call on `slot` has ended."""
        usage, slot.usage = slot.usage, None
        assert usage is not None
        self.unsettled -= 1
        seconds = slot.busy_seconds - usage.before
        if usage.rule is not None:
            self._learn(usage, usage.rule, slot.place, seconds)
            self._discarded.append(usage)
        for tenant, charged in usage.tenants:
            self._tenants.finish(tenant, charged, seconds / len(usage.tenants))

    def _learn(self, usage: CallUsage, rule: BatchRule, place: DeviceSlots, seconds: float) -> None:
        """Learn cost and size limit from a call of a batch function."""
        if usage.fits is not None:
            self.limits.lower(rule, usage.key, place, usage.fits)
        elif usage.is_typical and seconds > 0:
            self.costs.add(rule, place, usage.size, seconds, usage.at)
            self.limits.note_fit(rule, usage.key, place, usage.size)
