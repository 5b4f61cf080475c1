"""What a hook may be besides a callable of one event: choosy, a follower, a recorder of jobs, an attendant of calls.

A hook that gets every event costs some microseconds for each job, because events are objects and there are three of
them. Who must cost less says what it `wants`, or takes one plain tuple for each job as a `Recorder`. Who must see the
call itself, on its own thread, is an `Attendant`. A Director asks what its hooks are when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from director._device import Device
    from director._jobs.job import Job
    from director.events import Event


class JobRecord(NamedTuple):
    """What is known of one job. Moments are seconds of the Director's clock.

    A job that was over for its caller before its call had ended (cancelled, timed out) has two records: one at each of
    the two moments. The later one replaces the earlier. A try that failed and was followed by another has one too.

    Args:
        job: Its number.
        name: Its name.
        state: ``"succeeded"``, ``"failed"`` or ``"cancelled"``; ``"retried"`` for a try that was followed by another;
            ``"queued"`` or ``"running"`` for one that isn't over.
        slot: The slot that ran it, counted through all devices; `None` if it never ran.
        submitted: When it was submitted.
        started: When it started; `None` if it never ran.
        ended: When its call ended, or the wait of a job that never ran; `None` if the call still runs, or its end has
            not come to the event loop.
        settled: When the event loop heard of it; `None` for one that isn't over.
        error: What it raised, in one line; `None` if it raised nothing.
    """

    job: int
    name: str
    state: str
    slot: int | None
    submitted: float
    started: float | None
    ended: float | None
    settled: float | None
    error: str | None


RawRecord: TypeAlias = (
    "tuple[int, str, str, int | None, float, float | None, float | None, float | None, str | None] | JobRecord"
)
"""The fields of a `JobRecord` as a plain tuple, made in a third of the time: ``JobRecord(*raw)`` names them."""


class Unfinished(Protocol):
    """Tells of the jobs that are not over; from any thread; of none once the Director is gone."""

    def __call__(self, *, and_waiting: bool = True) -> list[RawRecord]:
        """Those that run and, unless it is told not to, those that wait: which may be very many."""


class Hook(Protocol):
    """A callable of one event that returns at once; `director.events.Hook` is the same."""

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""


@runtime_checkable
class Choosy(Protocol):
    """A hook that wants some events only; the others are not made for it."""

    wants: tuple[type[Event], ...]
    """The classes of the events it is called with, by themselves or by a base class."""


@runtime_checkable
class Follower(Protocol):
    """A hook that is told when a Director opens and when it has closed, on its event loop."""

    def begin(self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Unfinished) -> None:
        """A Director is about to open.

        Args:
            clock: Its clock.
            slots: The device of each slot.
            unfinished: Tells of the jobs that are not over.
        """

    def end(self, at: float) -> None:
        """The Director has closed."""


@runtime_checkable
class Wide(Protocol):
    """A follower that is told when devices have come to a Director that is open, on its event loop."""

    def widen(self, slots: tuple[Device, ...]) -> None:
        """There are more slots.

        Args:
            slots: The device of each; those of `begin` are at their places.
        """


@runtime_checkable
class Recorder(Follower, Protocol):
    """A follower that is also given one plain tuple for each job that is over, on the event loop, in order."""

    def record(self, record: RawRecord, /) -> object:
        """A job is over. Looked up once for each start of a Director, so it may be a bound method of a container."""


@runtime_checkable
class Attendant(Protocol):
    """A hook that stands beside each call, on the slot's own thread and in the context variables of the call."""

    def attend(self, jobs: Sequence[Job[object]]) -> AbstractContextManager[object]:
        """Enclose one call, which is for several jobs if it is a batch.

        What it raises is logged and changes nothing; it can't swallow what the call raises.
        """
