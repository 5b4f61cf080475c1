"""What the recorder keeps of what it is told."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from dashboard.stories import DEVICES, begin, opened, over
from director import QueueFull
from director.dashboard._jobs import as_text, document
from director.events import JobFailed, JobProgressed, JobRejected, JobRetried, ModelFailed, ModelLoaded
from director.hooks import JobRecorder as RecordingHook
from director.hooks import SelectiveHook
from director.testing import TestClock

if TYPE_CHECKING:
    from director.dashboard._recorder import Recorder


def test_it_is_a_recorder_that_wants_what_is_rare() -> None:
    recorder = opened()
    assert isinstance(recorder, RecordingHook)
    assert isinstance(recorder, SelectiveHook)
    assert {kind.__name__ for kind in recorder.wants} == {
        "JobRejected",
        "JobFailed",
        "JobRetried",
        "JobProgressed",
        "ModelLoaded",
        "ModelFailed",
    }


def test_a_job_that_is_over() -> None:
    recorder = opened()
    over(recorder, 1, 100.5, 102.5, slot=1, submitted=100.0, settled=102.6)
    ended = recorder.jobs.find(1)
    assert ended is not None
    assert document(ended, recorder.slots) == {
        "job": 1,
        "jobs": 1,
        "name": "detect",
        "state": "succeeded",
        "device": "simulated:1",
        "slot": 1,
        "submitted": 100.0,
        "started": 100.5,
        "ended": 102.5,
        "settled": 102.6,
        "waited": 0.5,
        "ran": 2.0,
        "attempts": 1,
        "progress": None,
        "call_goes_on": False,
        "failure": None,
    }


def test_seconds_count_what_happened_in_them() -> None:
    weights = iter([(7, 2, 0), (3, 1, 0)])
    recorder = opened(count_jobs=lambda: next(weights))
    over(recorder, 1, 100.1, 100.2)
    over(recorder, 2, 100.2, 101.3, submitted=100.1)
    over(recorder, 3, None, 101.5, state="cancelled", submitted=100.0)
    recorder(JobRejected(101.6, "detect", QueueFull(1, 1, None)))
    first, second = recorder.tally.last(5, 102.0)
    assert (first.ends, first.rejected) == ({"succeeded": 1, "failed": 0, "cancelled": 0}, 0)
    assert (second.ends, second.rejected) == ({"succeeded": 1, "failed": 0, "cancelled": 1}, 1)
    assert [(second.queued, second.running) for second in (first, second)] == [(7, 2), (3, 1)]
    assert sum(first.waits.values()) == 1
    assert sum(second.runs.values()) == 1


def test_the_jobs_of_a_call_are_counted_as_one_batch() -> None:
    recorder = opened()
    for job in range(3):
        over(recorder, job, 100.0, 100.5)
    over(recorder, 4, 100.0, 100.6, slot=1)
    over(recorder, 5, 100.7, 100.8)
    (second,) = recorder.tally.last(1, 101.0)
    assert {size: count for size, count in second.calls.items() if count} == {3: 1, 1: 2}


def test_a_job_whose_caller_has_left_holds_its_slot_until_the_call_ends() -> None:
    recorder = opened()
    over(recorder, 1, 100.0, None, state="failed", settled=101.0)
    ended = recorder.jobs.find(1)
    assert ended is not None
    assert (ended.goes_on, recorder.tracks[0].busy(100.0, 103.0)) == (True, 3.0)
    over(recorder, 1, 100.0, 104.0, state="failed", settled=104.1)
    ended = recorder.jobs.find(1)
    assert ended is not None
    assert (ended.goes_on, ended.ended, ended.settled) == (False, 104.0, 101.0)
    assert recorder.tracks[0].rows(0.0)[1] == [[100.0, 104.0, 1, 4.0, 1, True, 1, "detect"]]
    assert sum(second.ends["failed"] for second in recorder.tally.last(10, 106.0)) == 1, "it is one job"


def test_a_call_that_was_never_made_is_told_of_twice_and_counts_once() -> None:
    recorder = opened()
    for _ in range(2):
        over(recorder, 1, None, 100.5, state="cancelled", submitted=100.0)
    assert sum(second.ends["cancelled"] for second in recorder.tally.last(10, 106.0)) == 1
    assert recorder.tracks[0].rows(0.0) == (0, [])


def test_tries_that_fail_are_no_ends() -> None:
    recorder = opened()
    over(recorder, 1, 100.0, 101.0, state="retried")
    recorder(JobRetried(101.0, 1, "detect", DEVICES[0], 1, OSError("lost")))
    assert recorder.jobs.find(1) is None
    over(recorder, 1, 102.0, 103.0, slot=1, submitted=100.0)
    ended = recorder.jobs.find(1)
    assert ended is not None
    assert (ended.attempts, ended.state) == (2, "succeeded")
    (failure,) = recorder.failures.latest(5)
    assert (failure.kind, failure.count) == ("retried", 1)
    seconds = recorder.tally.last(10, 105.0)
    assert sum(sum(second.waits.values()) for second in seconds) == 0, "after a try it has waited and run"
    assert sum(sum(second.ends.values()) for second in seconds) == 1
    assert recorder.tracks[0].rows(0.0)[1] == [[100.0, 101.0, 1, 1.0, 1, False, 1, "detect"]]


def test_failures_of_every_kind() -> None:
    recorder = opened()
    recorder(JobRejected(100.0, "detect", QueueFull(1, 1, None)))
    recorder(ModelFailed(100.0, "detector", DEVICES[0], OSError("no weights")))
    over(recorder, 1, 100.0, 100.5, state="failed")
    recorder(JobFailed(100.5, 1, "detect", DEVICES[0], 0.0, 0.5, ValueError("odd")))
    told = [failure.summary() for failure in recorder.failures.latest(9)]
    assert [(each["kind"], each["name"], each["error"], each["message"]) for each in told] == [
        ("failed", "detect", "ValueError", "odd"),
        ("model", "detector", "OSError", "no weights"),
        ("rejected", "detect", "QueueFull", str(QueueFull(1, 1, None))),
    ]
    assert told[0]["devices"] == {"simulated:0": 1}
    ended = recorder.jobs.find(1)
    assert ended is not None
    assert ended.failure == told[0]["failure"]


def test_models_and_how_long_they_took_to_load() -> None:
    recorder = opened()
    recorder(ModelLoaded(100.0, "detector", DEVICES[1], 2.5))
    assert recorder.load_seconds == {("detector", "simulated:1"): 2.5}


def test_a_director_that_opens_again_begins_anew() -> None:
    recorder = opened()
    over(recorder, 1, 100.0, 101.0)
    clock = TestClock()
    clock.advance(200.0)
    begin(recorder, clock, slots=3)
    assert recorder.jobs.find(1) is None
    assert (recorder.opened, len(recorder.tracks), len(recorder.slots)) == (200.0, 3, 3)


class Tensor:
    pass


def test_nothing_of_a_job_is_kept_alive() -> None:
    """Neither what it reported nor what its error's frames hold: that may be memory of a device."""
    recorder = opened()
    alive = []

    def report_and_raise() -> None:
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        recorder(JobProgressed(100.1, 1, "detect", tensor))
        raise ValueError("odd")

    try:
        report_and_raise()
    except ValueError as error:
        over(recorder, 1, 100.0, 100.5, state="failed")
        recorder(JobFailed(100.5, 1, "detect", DEVICES[0], 0.0, 0.5, error))
    recorder.failures.describer.wait_idle()
    gc.collect()
    assert alive[0]() is None
    ended = recorder.jobs.find(1)
    assert ended is not None
    assert ended.progress == "<Tensor>"


def fill(recorder: Recorder, count: int, state: str) -> None:
    for job in range(count):
        at = 100.0 + job * 0.01
        recorder(JobProgressed(at, job, "detect", 0.5))
        over(recorder, job, at, at + 0.01, state=state)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "retried"])
def test_memory_is_bounded(state: str) -> None:
    recorder = opened()
    fill(recorder, 20_000, state)
    assert len(recorder.jobs.latest(10**6)) <= 4_000
    assert len(recorder.jobs._tries) <= 4_000
    assert len(recorder.jobs._progress) <= 4_000
    assert len(recorder.tracks[0].stretches) <= 600


def test_short_jobs_crowd_out_only_short_ones() -> None:
    recorder = opened()
    over(recorder, 0, 100.0, 101.0)
    over(recorder, 1, 101.0, 101.001, state="failed")
    for job in range(2, 5000):
        over(recorder, job, 101.0 + job * 0.001, 101.0005 + job * 0.001)
    assert recorder.jobs.find(0) is not None
    assert recorder.jobs.find(1) is not None
    assert recorder.jobs.find(2) is None
    assert recorder.jobs.find(4999) is not None
    assert [ended.job for ended in recorder.jobs.latest(3)] == [4999, 4998, 4997]


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, None),
        (0.5, 0.5),
        (3, 3.0),
        ("loading", "loading"),
        (True, "True"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ((1, 2), "(1, 2)"),
        ("x" * 1000, "x" * 200),
        (Mute(), "<Mute>"),
    ],
)
def test_any_progress_can_be_shown(progress: object, shown: object) -> None:
    assert as_text(progress) == shown
