"""Protocols of what a hook can be besides a callable of one event.

A plain hook is called with every event, which costs some microseconds per job, because three events are made for it. A
`SelectiveHook` names the events that it wants. A `LifespanHook` is called when a Director opens and closes and when it
gets more devices. A `JobRecorder` is given one plain tuple per job. A `CallHook` encloses each call, on the thread that
makes it. A Director checks which of these methods its hooks have when it starts.
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
    """What is known of one job. Times are seconds of the Director's clock.

    A job that was over for its caller before its call had ended (cancelled, timed out) has two records, one at each of
    the two times. The later one replaces the earlier. An attempt that failed and was followed by another has one too.

    Attributes:
        job: Its number.
        name: Its name.
        state: ``"succeeded"``, ``"failed"`` or ``"cancelled"``; ``"retried"`` for an attempt that was followed by
            another; ``"queued"`` or ``"running"`` for one that isn't over.
        slot: The slot that ran it, counted through all devices; `None` if it never ran.
        submitted: When it was submitted.
        started: When it started; `None` if it never ran.
        ended: When its call ended, or the wait of a job that never ran; `None` if the call still runs, or the event
            loop has not handled its end.
        settled: When the event loop handled its end; `None` for one that isn't over.
        error: What it raised, in one line; `None` if it raised nothing.
        tenant: Its tenant as text, of at most 120 characters; `None` if it has none.
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
    tenant: str | None = None


_Plain: TypeAlias = (
    "tuple[int, str, str, int | None, float, float | None, float | None, float | None, str | None, str | None]"
)
RawRecord: TypeAlias = "_Plain | JobRecord"
"""The fields of a `JobRecord` as a plain tuple, made in a third of the time: ``JobRecord(*raw)`` names them."""


class Unfinished(Protocol):
    """Lists the jobs that are not over, from any thread. Lists none once the Director has been deleted."""

    def __call__(self, *, and_waiting: bool = True) -> list[RawRecord]:
        """The running jobs and, unless `and_waiting` is false, the waiting ones, which may be very many."""


class Hook(Protocol):
    """A callable of one event that returns at once; `director.events.Hook` is the same."""

    def __call__(self, event: Event, /) -> None:
        """Handle `event`."""


@runtime_checkable
class SelectiveHook(Protocol):
    """A hook that is called with some kinds of events only; the others are not made for it."""

    wants: tuple[type[Event], ...]
    """The classes of the events it is called with, by themselves or by a base class."""


@runtime_checkable
class LifespanHook(Protocol):
    """A hook that is called when a Director opens, gets devices and has closed, on its event loop.

    A Director takes an object with `begin` and `end` for one. `devices_changed` is called if it is there: a hook that
    does not use the devices can do without.
    """

    def begin(self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Unfinished) -> None:
        """A Director is about to open.

        Args:
            clock: Its clock.
            slots: The device of each slot.
            unfinished: Lists the jobs that are not over.
        """

    def devices_changed(self, slots: tuple[Device, ...]) -> None:
        """An open Director has got devices, and has more slots.

        Args:
            slots: The device of each slot, those that `begin` was called with first.
        """

    def end(self, at: float) -> None:
        """The Director has closed, at the time `at` of its clock."""


@runtime_checkable
class JobRecorder(LifespanHook, Protocol):
    """A `LifespanHook` that is also given one plain tuple for each job that is over, on the event loop, in order."""

    def record(self, record: RawRecord, /) -> object:
        """A job is over. Looked up once per start of a Director, so it may be a bound method of a container."""


@runtime_checkable
class CallHook(Protocol):
    """A hook that encloses each call, on the slot's own thread and in the context variables of the call."""

    def around_call(self, jobs: Sequence[Job[object]]) -> AbstractContextManager[object]:
        """Make the context manager that encloses one call, which is for several jobs if it is a batch.

        What it raises is logged and changes nothing; it can't swallow what the call raises.
        """
