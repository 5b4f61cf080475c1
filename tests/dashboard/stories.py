"""Events as a Director would tell them, for a recorder that has none."""

from __future__ import annotations

from director.dashboard._recorder import Recorder
from director.events import (
    DirectorOpened,
    JobCancelled,
    JobFailed,
    JobRetried,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    WorkerReaped,
)
from director.testing import simulated_devices

DEVICES = tuple(simulated_devices(2))


def opened(slots: int = 2, at: float = 100.0) -> Recorder:
    """A recorder of a Director that has just opened, with two devices."""
    recorder = Recorder(lambda: slots)
    recorder(DirectorOpened(at, DEVICES))
    return recorder


def run(
    recorder: Recorder,
    job: int,
    begin: float,
    end: float,
    *,
    slot: int = 0,
    name: str = "detect",
    submitted: float | None = None,
) -> None:
    """A job from its submission to its end."""
    submit(recorder, job, begin if submitted is None else submitted, name=name)
    start(recorder, job, begin, slot=slot, name=name, waited=begin - (begin if submitted is None else submitted))
    succeed(recorder, job, end, ran=end - begin, slot=slot, name=name)


def submit(recorder: Recorder, job: int, at: float, name: str = "detect", tenant: str | None = None) -> None:
    recorder(JobSubmitted(at, job, name, 0, tenant))


def start(
    recorder: Recorder, job: int, at: float, *, slot: int = 0, name: str = "detect", waited: float = 0.0, batch: int = 1
) -> None:
    recorder(JobStarted(at, job, name, DEVICES[slot % 2], slot, waited, batch))


def succeed(recorder: Recorder, job: int, at: float, *, ran: float, slot: int = 0, name: str = "detect") -> None:
    recorder(JobSucceeded(at, job, name, DEVICES[slot % 2], 0.0, ran))


def fail(
    recorder: Recorder,
    job: int,
    at: float,
    error: BaseException,
    *,
    ran: float | None = None,
    slot: int = 0,
    name: str = "detect",
) -> None:
    recorder(JobFailed(at, job, name, DEVICES[slot % 2], 0.0, ran, error))


def cancel_waiting(recorder: Recorder, job: int, at: float, name: str = "detect") -> None:
    recorder(JobCancelled(at, job, name, None, 0.0, None))


def retry(recorder: Recorder, job: int, at: float, error: BaseException, name: str = "detect") -> None:
    recorder(JobRetried(at, job, name, DEVICES[0], 1, error))


def reap(recorder: Recorder, slot: int, at: float) -> None:
    recorder(WorkerReaped(at, DEVICES[slot % 2], slot))
