"""What runs and what waits: looked at as often as it costs little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.dashboard._current import CurrentJobs
from director.dashboard._recorder import Recorder

if TYPE_CHECKING:
    from director.hooks import RawRecord


def waits(job: int, name: str = "detect", submitted: float = 1.0) -> RawRecord:
    return job, name, "queued", None, submitted, None, None, None, None


def runs(job: int, slot: int, started: float = 2.0) -> RawRecord:
    return job, "detect", "running", slot, 1.0, started, None, None, None


class Told:
    """A recorder whose Director has these jobs; `asked` says for what it was asked."""

    def __init__(self, *jobs: RawRecord) -> None:
        self.jobs = list(jobs)
        self.asked: list[bool] = []
        self.recorder = Recorder(lambda: (0, 0, 0), lambda: None)
        self.recorder.unfinished = self

    def __call__(self, *, and_waiting: bool = True) -> list[RawRecord]:
        self.asked.append(and_waiting)
        return [raw for raw in self.jobs if and_waiting or raw[5] is not None]


def test_what_waits_by_function_the_most_first() -> None:
    told = Told(waits(1, "a", 5.0), waits(2, "b", 3.0), waits(3, "b", 4.0), runs(4, 0))
    glance = CurrentJobs(told.recorder)
    glance.refresh(3, 0.0)
    assert glance.waiting(3, 10.0) == [
        {"name": "b", "jobs": 2, "oldest": 7.0},
        {"name": "a", "jobs": 1, "oldest": 5.0},
    ]
    assert [raw[0] for raw in glance.running] == [4]


def test_very_many_functions_are_put_together() -> None:
    told = Told(*[waits(n, f"f{n}") for n in range(30)])
    glance = CurrentJobs(told.recorder)
    glance.refresh(30, 0.0)
    listed = glance.waiting(30, 10.0)
    assert len(listed) == 21
    assert listed[-1] == {"name": "(others)", "jobs": 10, "oldest": None}


def test_the_jobs_of_a_call_are_together() -> None:
    told = Told(runs(1, 0), runs(2, 0), runs(3, 1))
    glance = CurrentJobs(told.recorder)
    glance.refresh(0, 0.0)
    assert {slot: [raw[0] for raw in jobs] for slot, jobs in glance.calls().items()} == {0: [1, 2], 1: [3]}


def test_a_job_that_was_taken_and_has_not_begun_is_neither() -> None:
    told = Told((1, "detect", "running", None, 1.0, None, None, None, None))
    glance = CurrentJobs(told.recorder)
    glance.refresh(0, 0.0)
    assert glance.running == []


def test_many_are_looked_at_seldom_and_very_many_never() -> None:
    told = Told(waits(1), runs(2, 0))
    glance = CurrentJobs(told.recorder)
    for queued, moment in [(100, 0.0), (100, 0.25), (10_000, 0.5), (10_000, 2.2), (10_000, 2.3), (10_000, 4.2)]:
        glance.refresh(queued, moment)
    assert told.asked == [True, True, False, False, True, False]
    assert glance.waiting(10_000, 10.0)[-1] == {"name": "(others)", "jobs": 9_999, "oldest": None}
    glance.refresh(100_000, 100.0)
    assert told.asked[-1] is False
    assert glance.waiting(100_000, 10.0) == [{"name": "(too many to look at)", "jobs": 100_000, "oldest": None}]
    assert [raw[0] for raw in glance.running] == [2], "what runs is always looked at"


def test_finding_one() -> None:
    told = Told(waits(1), runs(2, 0))
    glance = CurrentJobs(told.recorder)
    assert glance.find(1, 1) == waits(1)
    assert glance.find(2, 1_000_000) == runs(2, 0)
    assert glance.find(1, 1_000_000) is None, "looking would hold up the app"
    assert glance.find(3, 1) is None
