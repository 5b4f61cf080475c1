"""What the recorder keeps of the events that it is told."""

from __future__ import annotations

import gc
import weakref

import pytest

from dashboard.stories import DEVICES, cancel_waiting, fail, opened, reap, retry, run, start, submit, succeed
from director import QueueFull
from director.dashboard._jobs import JobRecord, Jobs, as_text
from director.events import DirectorOpened, JobProgressed, JobRejected, ModelFailed, ModelLoaded


def test_one_job_from_its_submission_to_its_end() -> None:
    recorder = opened()
    submit(recorder, 1, 100.0, tenant="a")
    record = recorder.jobs.find(1)
    assert record is not None
    assert (record.state, recorder.jobs.queued) == ("queued", 1)
    start(recorder, 1, 100.5, slot=1, waited=0.5, batch=4)
    assert (record.state, recorder.jobs.queued, list(recorder.jobs.running)) == ("running", 0, [1])
    succeed(recorder, 1, 102.5, ran=2.0, slot=1)
    assert recorder.jobs.find(1) is record
    assert recorder.jobs.running == {}
    told = record.document()
    assert told == {
        "job": 1,
        "name": "detect",
        "state": "succeeded",
        "priority": 0,
        "tenant": "a",
        "device": "simulated:1",
        "slot": 1,
        "submitted": 100.0,
        "started": 100.5,
        "ended": 102.5,
        "waited": 0.0,
        "ran": 2.0,
        "batch": 4,
        "attempts": 1,
        "progress": None,
        "call_goes_on": False,
        "failure": None,
    }


def test_seconds_count_what_happened_in_them() -> None:
    recorder = opened()
    run(recorder, 1, 100.1, 100.2)
    run(recorder, 2, 100.2, 101.3, submitted=100.1)
    submit(recorder, 3, 101.4)
    cancel_waiting(recorder, 3, 101.5)
    recorder(JobRejected(101.6, "detect", QueueFull(1, 1, None)))
    first, second = recorder.tally.last(5, 102.0)
    assert (first.submitted, first.succeeded, first.queued, first.running) == (2, 1, 0, 1)
    assert (second.submitted, second.succeeded, second.cancelled, second.rejected) == (1, 1, 1, 1)
    assert sum(first.waits.values()) == 2
    assert sum(second.runs.values()) == 1
    assert second.queued == 0


def test_calls_are_counted_by_the_size_of_their_batch() -> None:
    recorder = opened()
    for job in (1, 2, 3):
        submit(recorder, job, 100.0)
        start(recorder, job, 100.0, batch=3)
    run(recorder, 4, 100.5, 100.6, slot=1)
    (second,) = recorder.tally.last(1, 101.0)
    assert second.calls == {3: pytest.approx(1.0), 1: 1.0}


def test_a_job_whose_caller_has_left_holds_its_slot_until_the_worker_leaves() -> None:
    recorder = opened()
    submit(recorder, 1, 100.0)
    start(recorder, 1, 100.0)
    fail(recorder, 1, 101.0, TimeoutError("late"), ran=None)
    record = recorder.jobs.find(1)
    assert record is not None
    assert (record.state, record.left, recorder.jobs.running) == ("failed", True, {})
    assert recorder.tracks[0].busy(100.0, 103.0) == 3.0
    reap(recorder, 0, 104.0)
    assert recorder.tracks[0].busy(100.0, 110.0) == 4.0


def test_a_retry_waits_again_and_is_one_job() -> None:
    recorder = opened()
    submit(recorder, 1, 100.0)
    start(recorder, 1, 100.0)
    retry(recorder, 1, 101.0, OSError("lost"))
    record = recorder.jobs.find(1)
    assert record is not None
    assert (record.state, recorder.jobs.queued, record.submitted) == ("queued", 1, 100.0)
    assert recorder.tracks[0].rows(0.0)[1] == [[100.0, 101.0, 1, 1.0, 1, False, 1, "detect"]]
    start(recorder, 1, 102.0, slot=1, waited=2.0)
    succeed(recorder, 1, 103.0, ran=1.0, slot=1)
    record = recorder.jobs.find(1)
    assert record is not None
    assert (record.attempts, record.state, recorder.jobs.queued) == (2, "succeeded", 0)
    (failure,) = recorder.failures.latest(5)
    assert (failure.kind, failure.count) == ("retried", 1)
    waits = [second.waits for second in recorder.tally.last(10, 105.0)]
    assert sum(sum(histogram.values()) for histogram in waits) == 1, "the second try has waited and run"


def test_failures_of_every_kind() -> None:
    recorder = opened()
    recorder(JobRejected(100.0, "detect", QueueFull(1, 1, None)))
    recorder(ModelFailed(100.0, "detector", DEVICES[0], OSError("no weights")))
    submit(recorder, 1, 100.0)
    start(recorder, 1, 100.0)
    fail(recorder, 1, 100.5, ValueError("odd"), ran=0.5)
    told = [failure.summary() for failure in recorder.failures.latest(9)]
    assert [(each["kind"], each["name"], each["error"], each["message"]) for each in told] == [
        ("failed", "detect", "ValueError", "odd"),
        ("model", "detector", "OSError", "no weights"),
        ("rejected", "detect", "QueueFull", str(QueueFull(1, 1, None))),
    ]
    assert told[0]["devices"] == {"simulated:0": 1}
    record = recorder.jobs.find(1)
    assert record is not None
    assert record.error == told[0]["failure"]


def test_progress_is_kept_of_what_runs() -> None:
    recorder = opened()
    submit(recorder, 1, 100.0)
    start(recorder, 1, 100.0)
    recorder(JobProgressed(100.1, 1, "detect", 0.25))
    recorder(JobProgressed(100.1, 99, "detect", 0.25))
    record = recorder.jobs.find(1)
    assert record is not None
    assert record.document()["progress"] == 0.25


def test_models_and_how_long_they_took_to_load() -> None:
    recorder = opened()
    recorder(ModelLoaded(100.0, "detector", DEVICES[1], 2.5))
    assert recorder.load_seconds == {("detector", "simulated:1"): 2.5}


def test_a_director_that_opens_again_begins_anew() -> None:
    recorder = opened()
    submit(recorder, 1, 100.0)
    recorder(DirectorOpened(200.0, DEVICES))
    assert recorder.jobs.queued == 0
    assert recorder.jobs.find(1) is None
    assert recorder.opened == 200.0


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

    submit(recorder, 1, 100.0)
    start(recorder, 1, 100.0)
    try:
        report_and_raise()
    except ValueError as error:
        fail(recorder, 1, 100.5, error, ran=0.5)
    gc.collect()
    assert alive[0]() is None
    record = recorder.jobs.find(1)
    assert record is not None
    assert "Tensor object" in record.document()["progress"]


def test_memory_is_bounded() -> None:
    recorder = opened()
    for job in range(30_000):
        submit(recorder, job, 100.0)
    assert recorder.jobs.queued == 30_000
    assert len(recorder.jobs.waiting) == 10_000
    for job in range(30_000):
        begin = 100.0 + job * 0.01
        start(recorder, job, begin)
        succeed(recorder, job, begin + 0.01, ran=0.01)
    assert recorder.jobs.queued == 0
    assert recorder.jobs.waiting == {}
    assert len(recorder.jobs.ended(10**6)) <= 5_000
    assert len(recorder.tracks[0].stretches) <= 600


def test_short_jobs_crowd_out_only_short_ones() -> None:
    recorder = opened()
    run(recorder, 0, 100.0, 101.0)
    for job in range(1, 5000):
        run(recorder, job, 101.0 + job * 0.001, 101.0005 + job * 0.001)
    assert recorder.jobs.find(0) is not None
    assert recorder.jobs.find(1) is None
    assert recorder.jobs.find(4999) is not None
    assert [record.id for record in recorder.jobs.ended(3)] == [4999, 4998, 4997]


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
        (Mute(), "<repr() raised RuntimeError>"),
    ],
)
def test_any_progress_can_be_shown(progress: object, shown: object) -> None:
    assert as_text(progress) == shown


def test_an_end_without_a_beginning_is_no_trouble() -> None:
    jobs = Jobs()
    assert jobs.end(7, "f").id == 7
    assert jobs.queued == 0
    assert jobs.start(8, "f").submitted is None
    assert isinstance(jobs.retry(8, "f"), JobRecord)
