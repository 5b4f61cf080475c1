"""From checkups, XIDs and silence to verdicts. Pure: it is told the time, and owned by one thread.

Two kinds of evidence. Checkups and silence say how a device *is*, and the verdict changes when they do. A fatal XID
says what *has happened*: each is a verdict of its own, and a good checkup after it takes nothing back; that is for a
probe.

A device that does not answer need not be the one that is broken: one lock in the driver serves all, so the dead GPU may
be another one. It is lost if NVML answers for another device that was asked later, or if there is no other; until then
it is degraded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from director._devices.health.rules import describe_xid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    pass
    from director._devices.health.rules import HealthRules

WARNED = 600.0  # seconds that an XID which is neither fatal nor harmless makes its device degraded
_DOUBTS = 3  # so many checkups in a row with an error that has no clear meaning


@dataclass(slots=True)
class _Case:
    """What is known of one device."""

    checkup: Verdict
    told: Verdict
    warning: Verdict
    warned_until: float = 0.0
    doubts: int = 0
    silent_since: float | None = None
    answered: float = 0.0  # when the last question was asked that it has answered


class Diagnosis:
    """Keeps the case of each device.

    Args:
        uuids: The devices.
        rules: The user's.
    """

    def __init__(self, uuids: Iterable[str], rules: HealthRules) -> None:
        fine = {uuid: Verdict(uuid, "fine") for uuid in uuids}
        self._cases = {uuid: _Case(verdict, verdict, verdict) for uuid, verdict in fine.items()}
        self._rules = rules

    @property
    def in_doubt(self) -> bool:
        """Some device answers with an error whose repetition would say something."""
        return any(case.doubts and case.checkup.kind != "lost" for case in self._cases.values())

    def drop(self, uuid: str) -> None:
        """This device can't be watched."""
        self._cases.pop(uuid, None)

    def add_checkup(self, checkup: Checkup) -> None:
        """A device has answered."""
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
        """A device has not answered in time."""
        self._cases[uuid].silent_since = now

    def add_xid(self, xid: Xid, now: float) -> Verdict | None:
        """The driver has reported an error; if it is a fatal one, the verdict to be told of it."""
        case = self._cases.get(xid.uuid)
        if case is None or xid.number in self._rules.harmless_xids:
            return None
        reason = describe_xid(xid.number)
        if xid.number in self._rules.fatal_xids:
            return Verdict(xid.uuid, "lost", reason)
        case.warning, case.warned_until = Verdict(xid.uuid, "degraded", reason), now + WARNED
        return None

    def changes(self, now: float) -> Iterator[Verdict]:
        """The verdicts that differ from those told before; each is told once."""
        for uuid, case in self._cases.items():
            verdict = self._verdict_of(uuid, case, now)
            if verdict.kind != case.told.kind or verdict.reason != case.told.reason:
                case.told = verdict
                yield verdict

    def _verdict_of(self, uuid: str, case: _Case, now: float) -> Verdict:
        """The worst of what speaks against it."""
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
    """One device as NVML showed it at one moment.

    Args:
        uuid: Which device.
        begun: When it was asked, in seconds of `time.monotonic`.
        condition: ``"doubtful"``: the error has no clear meaning, and only its repetition says something.
        reason: Why it isn't fine.
        total_memory: Bytes; `None` where it has none of its own, or can't be asked.
        free_memory: Bytes that nobody has allocated, this process or any other; `None` as above.
    """

    uuid: str
    begun: float
    condition: Condition | Literal["doubtful"] = "fine"
    reason: str = ""
    total_memory: int | None = None
    free_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Xid:
    """The driver has reported an error of a device, caused by any process on it.

    Args:
        uuid: Which device.
        number: NVIDIA's number for it.
    """

    uuid: str
    number: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a device.

    Args:
        uuid: Which device.
        kind: ``"lost"``: it can't be used; ``"degraded"``: it works, and somebody should look at it; ``"fine"``: NVML
            finds nothing wrong with it, or not any more.
        reason: Why it isn't fine.
    """

    uuid: str
    kind: Condition
    reason: str = ""
