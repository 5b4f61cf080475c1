"""Who used how much: device seconds to tenants, call times to functions. Guarded by `scheduler`'s lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._scheduler.costs import BatchSizeLimits, CostModel
from director._scheduler.slots import CallUsage

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._jobs.options import BatchRule
    from director._scheduler.fair_share import FairShare
    from director._scheduler.slots import DeviceSlots, Slot


class Accounting:
    """Charges calls as they start and settles them as they end.

    Args:
        tenants: To be charged, as soon as there are any.
        spent: Takes what may hold the last reference to a function, to be let go of outside of the lock.
    """

    __slots__ = ("_spent", "_tenants", "costs", "limits", "unsettled")

    def __init__(self, tenants: FairShare, spent: list[Any]) -> None:
        self._tenants = tenants
        self._spent = spent
        self.costs = CostModel()
        self.limits = BatchSizeLimits()
        self.unsettled = 0  # calls that have not ended

    def open(self, slot: Slot, jobs: list[ScheduledJob[Any]], is_warm: bool, now: float) -> None:
        """A call for `jobs` starts on `slot`; `is_warm`: without loading a model first."""
        rule, tenants = jobs[0].options.batch_rule, self._tenants
        extra = jobs[0].extras
        charge = slot.usage = CallUsage(
            now, slot.busy_seconds, rule, None if extra is None else extra.batch_key, len(jobs)
        )
        charge.is_typical = is_warm
        self.unsettled += 1
        if tenants.known:
            served = [tenants.of(job.options.account) for job in jobs]
            charge.tenants = [(tenant, tenants.start(tenant)) for tenant in served]

    def repair(self, slots: list[Slot]) -> None:
        """Count anew the calls that have not ended."""
        charges = [slot.usage for slot in slots if slot.usage is not None]
        self.unsettled = len(charges)
        self._tenants.recount_running(tenant for charge in charges for tenant, _ in charge.tenants)

    def counts(self, job: ScheduledJob[Any]) -> bool:
        """Whether anybody is charged with a call that begins with `job`."""
        return job.options.batch_rule is not None or bool(self._tenants.known)

    def settle(self, slot: Slot) -> None:
        """The call on `slot` has ended."""
        charge, slot.usage = slot.usage, None
        assert charge is not None
        self.unsettled -= 1
        seconds = slot.busy_seconds - charge.before
        if charge.rule is not None:
            self._learn(charge, charge.rule, slot.place, seconds)
            self._spent.append(charge)
        for tenant, charged in charge.tenants:
            self._tenants.finish(tenant, charged, seconds / len(charge.tenants))

    def _learn(self, charge: CallUsage, rule: BatchRule, place: DeviceSlots, seconds: float) -> None:
        """What the call of a function of batches tells of the next ones."""
        if charge.fits is not None:
            self.limits.lower(rule, charge.key, place, charge.fits)
        elif charge.is_typical and seconds > 0:
            self.costs.add(rule, place, charge.size, seconds, charge.at)
            self.limits.note_fit(rule, charge.key, place, charge.size)
