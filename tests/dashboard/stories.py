"""What a Director would tell a recorder, for one that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.dashboard._recorder import Recorder
from director.testing import TestClock, simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = tuple(simulated_devices(2))


def opened(
    slots: int = 2, at: float = 100.0, count_jobs: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
) -> Recorder:
    """A recorder of a Director that has just opened, with two devices whose slots take turns."""
    clock = TestClock()
    clock.advance(at)
    recorder = Recorder(count_jobs, lambda: None)
    begin(recorder, clock, slots)
    return recorder


def begin(recorder: Recorder, clock: TestClock, slots: int = 2) -> None:
    recorder.begin(clock.time, tuple(DEVICES[slot % 2] for slot in range(slots)), lambda *, and_waiting=True: [])


def over(
    recorder: Recorder,
    job: int,
    started: float | None,
    ended: float | None,
    *,
    state: str = "succeeded",
    slot: int | None = 0,
    name: str = "detect",
    submitted: float | None = None,
    settled: float | None = None,
    tenant: str | None = None,
) -> None:
    """A job is over; it was submitted when it started, and settled when it ended, unless told otherwise."""
    first = next(moment for moment in (submitted, started, ended) if moment is not None)
    last = next(moment for moment in (settled, ended, started) if moment is not None)
    place = slot if started is not None else None
    recorder.record((job, name, state, place, first, started, ended, last, None, tenant))
