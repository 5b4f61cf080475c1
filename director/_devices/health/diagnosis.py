"""Derives verdicts from checkups, XIDs and timeouts. Pure: the time is passed in. Owned by one thread.

There are two kinds of evidence. Checkups and timeouts describe the present state of a device, and the verdict changes
with them. A fatal XID describes an event: each one is a verdict of its own, which later good checkups don't revoke;
only a probe does.

A device that does not answer is not always the broken one: the driver has one lock for all, so another GPU may be dead.
It is lost if NVML answers for another device that was asked later, or if there is no other; until then it is degraded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from director._devices.health.rules import describe_xid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    pass
    from director._devices.health.rules import HealthRules

WARNED = 600.0  # seconds that a device is degraded after an XID that is neither fatal nor harmless
_DOUBTS = 3  # consecutive checkups with an ambiguous error that make a device lost


@dataclass(slots=True)
class _Case:
    """The evidence about one device."""

    checkup: Verdict
    told: Verdict
    warning: Verdict
    warned_until: float = 0.0
    doubts: int = 0
    silent_since: float | None = None
    answered: float = 0.0  # when the last checkup that it has answered began


class Diagnosis:
    """Keeps the evidence about each device."""

    def __init__(self, uuids: Iterable[str], rules: HealthRules) -> None:
        fine = {uuid: Verdict(uuid, "fine") for uuid in uuids}
        self._cases = {uuid: _Case(verdict, verdict, verdict) for uuid, verdict in fine.items()}
        self._rules = rules

    @property
    def in_doubt(self) -> bool:
        """Whether some device has answered with an ambiguous error, which counts only if it is repeated."""
        return any(case.doubts and case.checkup.kind != "lost" for case in self._cases.values())

    def drop(self, uuid: str) -> None:
        """Stop watching a device."""
        self._cases.pop(uuid, None)

    def add_checkup(self, checkup: Checkup) -> None:
        """Add the answer of a device."""
        case = self._cases[checkup.uuid]
        case.silent_since, case.answered = None, checkup.begun
        if checkup.condition == "doubtful":
            case.doubts += 1
            if case.doubts >= _DOUBTS:
                case.checkup = Verdict(checkup.uuid, "lost", f"{checkup.reason}, {case.doubts} times in a row")
            return
        case.doubts = 0
        case.checkup = Verdict(checkup.uuid, checkup.condition, checkup.reason)

    def add_timeout(self, uuid: str, now: float) -> None:
        """Record that a device has not answered in time."""
        self._cases[uuid].silent_since = now

    def add_xid(self, xid: Xid, now: float) -> Verdict | None:
        """Add an error that the driver has reported; returns the verdict to report if it is fatal."""
        case = self._cases.get(xid.uuid)
        if case is None or xid.number in self._rules.harmless_xids:
            return None
        reason = describe_xid(xid.number)
        if xid.number in self._rules.fatal_xids:
            return Verdict(xid.uuid, "lost", reason)
        case.warning, case.warned_until = Verdict(xid.uuid, "degraded", reason), now + WARNED
        return None

    def changes(self, now: float) -> Iterator[Verdict]:
        """The verdicts that differ from those returned before."""
        for uuid, case in self._cases.items():
            verdict = self._verdict_of(uuid, case, now)
            if verdict.kind != case.told.kind or verdict.reason != case.told.reason:
                case.told = verdict
                yield verdict

    def _verdict_of(self, uuid: str, case: _Case, now: float) -> Verdict:
        """The verdict by the worst evidence."""
        if case.checkup.kind == "lost":
            return case.checkup
        if case.silent_since is not None:
            return self._unresponsive(uuid, case.silent_since)
        if case.checkup.kind == "degraded":
            return case.checkup
        return case.warning if now < case.warned_until else case.checkup

    def _unresponsive(self, uuid: str, since: float) -> Verdict:
        others = [case for other, case in self._cases.items() if other != uuid]
        if not others:
            return Verdict(uuid, "lost", "unresponsive: NVML does not answer")
        if any(case.silent_since is None and case.answered > since for case in others):
            return Verdict(uuid, "lost", "unresponsive: NVML answers for other devices, and not for it")
        return Verdict(uuid, "degraded", "unresponsive: NVML does not answer, perhaps because of another device")


Condition: TypeAlias = Literal["lost", "degraded", "fine"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """The state of one device by NVML at one time.

    Args:
        uuid: The device.
        begun: When it was asked, in seconds of `time.monotonic`.
        condition: ``"doubtful"``: an ambiguous error, which counts only if it is repeated.
        reason: Why it isn't fine.
        total_memory: Bytes; `None` if it has no memory of its own, or can't be read.
        free_memory: Bytes that no process has allocated; `None` as above.
    """

    uuid: str
    begun: float
    condition: Condition | Literal["doubtful"] = "fine"
    reason: str = ""
    total_memory: int | None = None
    free_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Xid:
    """An error of a device that the driver has reported, caused by any process on it."""

    uuid: str
    number: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion about a device.

    Args:
        uuid: The device.
        kind: ``"lost"``: it can't be used; ``"degraded"``: it works, and an operator should check it;
            ``"fine"``: NVML reports no problem, or no longer.
        reason: Why it isn't fine.
    """

    uuid: str
    kind: Condition
    reason: str = ""
