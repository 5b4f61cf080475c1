"""A short storm, and whether the books would find out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.chaos import callers, report, storm
from benchmarks.chaos.__main__ import main
from benchmarks.chaos.books import MOST_NAMED, Books
from benchmarks.chaos.calls import note
from benchmarks.chaos.remains import Remains
from benchmarks.chaos.values import Value, WrongArgument, check_argument, make
from director._executors.thread import ThreadExecutor
from director._jobs.calls import StreamCall
from director._jobs.job_runner import JobRunner
from director.cli._bench.calls import Array
from director.cli._bench.catalog import run_apart
from director.events import JobProgressed, JobSubmitted, JobSucceeded

if TYPE_CHECKING:
    from benchmarks.chaos.received import Received

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes need Linux"),
    pytest.mark.programs,
]
WITH_TESTS = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
NOTHING = Remains(0, 20_000, 20_000_000, 10, 0, 0)


@pytest.mark.slow
def test_all_is_well_after_a_short_storm() -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks.chaos"]
    options = ["--seconds", "4", "--jobs", "400", "--values", "4000", "--seed", "5"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, env=WITH_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("chaos, seed 5: ")
    assert last.startswith("All is well")
    assert " children killed" in done.stdout
    assert " right, 0 foreign, 0 lost, 0 doubled\n" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_all_is_well_with_threads() -> None:
    outcome = run_apart(storm.run, storm.Plan(seconds=2, jobs=400, values=4000, seed=6, executor="thread"))
    assert outcome.faults == []
    assert outcome.values["right"] >= 4000
    assert outcome.jobs >= 400
    assert outcome.troubles["callers left"] > 0


# ---- what would be found


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path / "begun")


def tell(books: Books, job: int, *, ends: int) -> None:
    books(JobSubmitted(0.0, job, "a", 0))
    for _ in range(ends):
        books(JobSucceeded(0.0, job, "a", None, 0.0, 0.0))


def test_a_job_that_ended_once_is_well(books: Books, tmp_path: Path) -> None:
    tell(books, 1, ends=1)
    note(str(tmp_path / "begun"), 0)
    books.ended(0, "returned", 1, True)
    books.close()
    assert books.faults == []
    assert books.jobs == 1


@pytest.mark.parametrize("ends", [0, 2])
def test_one_that_never_ended_or_twice_is_found(books: Books, ends: int) -> None:
    tell(books, 1, ends=1)
    tell(books, 2, ends=ends)
    books.close()
    assert books.faults == [f"job 2: ended {ends} times, by the events"]


def test_one_that_ran_too_often_is_found(books: Books, tmp_path: Path) -> None:
    for _ in range(3):
        note(str(tmp_path / "begun"), 0)
    books.ended(0, "returned", 2, True)
    books.close()
    assert books.faults == ["job 0: begun 3 times, which is too often"]


def test_one_that_never_ran_and_has_an_answer_is_found(books: Books) -> None:
    books.ended(0, "returned", 1, True)
    books.ended(1, "cancelled", 1, False)
    books.close()
    assert books.faults == ["job 0: begun 0 times, and has an answer"]


def test_many_such_jobs_are_counted(books: Books) -> None:
    for number in range(100):
        books.ended(number, "returned", 1, True)
    books.close()
    assert len(books.faults) == MOST_NAMED + 1
    assert books.faults[-1] == f"... and {100 - MOST_NAMED} more such jobs"


@pytest.mark.parametrize(
    ("after", "fault"),
    [
        (NOTHING._replace(memory=90_000_000), "memory: 20,000,000 after a third of the storm, 90,000,000 in the end"),
        (NOTHING._replace(objects=50_000), "objects: 20,000 after a third of the storm, 50,000 in the end"),
        (NOTHING._replace(descriptors=90), "descriptors: 10 after a third of the storm, 90 in the end"),
    ],
)
def test_what_grows_is_found(tmp_path: Path, after: Remains, fault: str) -> None:
    it = storm.Storm(storm.Plan(), tmp_path)
    it._compare(NOTHING, NOTHING)
    it._compare(NOTHING, after)
    assert it._books.faults == [fault]


def test_what_is_left_behind_is_found(tmp_path: Path) -> None:
    it = storm.Storm(storm.Plan(), tmp_path)
    it._look_for_leftovers(NOTHING, NOTHING._replace(threads=1, children=2, descriptors=11))
    assert it._books.faults == [
        "descriptors: 10 before the Director, 11 after it",
        "threads: 0 before the Director, 1 after it",
        "children: 0 before the Director, 2 after it",
    ]


# ---- values that go astray


class Wire:
    """An executor in this process that misplaces values: of every hundred answers, or streamed values, one or two.

    Args:
        fault: ``"swaps"``, ``"drops"`` or ``"doubles"``, or ``"withholds"``: one answer comes when the gate is open.
        streams: Whether streams are meant, or jobs.
    """

    def __init__(self, fault: str, streams: bool) -> None:
        self._threads = ThreadExecutor()
        self.fault = fault
        self.streams = streams
        self.values = 0
        self.kept: Any = None
        self.gate = threading.Event()

    def runner(self, *arguments: Any) -> Any:
        return Misplacing(self._threads.runner(*arguments), self)

    def carry(self, value: Any) -> list[Any]:
        """What arrives instead of `value`."""
        self.values += 1
        if self.fault == "withholds":
            if self.values == 40:
                self.gate.wait()
            return [value]
        if self.values % 100 == 40:
            self.kept = value
            return [] if self.fault == "drops" else [value]
        if self.values % 100 == 41 and self.fault != "drops" and self.kept is not None:
            return [self.kept, value] if self.fault == "doubles" else [value, self.kept]
        return [value]


class Misplacing(JobRunner):
    """A seat of such a wire."""

    def __init__(self, seat: Any, wire: Wire) -> None:
        self._seat = seat
        self._wire = wire
        self._late: list[Any] = []

    def run_batch(self, jobs: list[Any]) -> Any:
        return self._seat.run_batch(jobs)

    def prepare(self, jobs: list[Any]) -> None:
        self._seat.prepare(jobs)

    def recover(self, error: BaseException, fault: Any) -> bool:
        return bool(self._seat.recover(error, fault))

    def close(self) -> None:
        self._seat.close()

    def abandon(self, job: Any) -> None:
        self._seat.abandon(job)

    def abort(self) -> bool:
        return bool(self._seat.abort())

    def run(self, job: Any) -> Any:
        if isinstance(job.fn, StreamCall):
            if self._wire.streams:
                job.fn.channel = MisplacingBridge(job.fn.channel, self._wire)
            return self._seat.run(job)
        answer = self._seat.run(job)
        if self._wire.streams or not isinstance(answer, Value):
            return answer
        self._late += self._wire.carry(answer)  # the first answer there is counts, as on a wire without numbers
        return self._late.pop(0) if self._late else None


class MisplacingBridge:
    """The bridge of a stream over such a wire."""

    def __init__(self, bridge: Any, wire: Wire) -> None:
        self._bridge = bridge
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bridge, name)

    def put(self, value: Any) -> None:
        for each in self._wire.carry(value):
            self._bridge.put(each)


@pytest.mark.parametrize("streams", [False, True], ids=["jobs", "streams"])
@pytest.mark.parametrize("fault", ["swaps", "drops", "doubles"])
@pytest.mark.slow
async def test_a_value_that_goes_astray_is_found(tmp_path: Path, fault: str, streams: bool) -> None:
    wire = Wire(fault, streams)
    it = storm.Storm(storm.Plan(seconds=0.1, jobs=200, values=500, executor=wire, patience=5.0), tmp_path)
    outcome = await it.rage()
    assert wire.values > 100
    values = outcome.values
    assert values["foreign"] + values["lost"] + values["doubled"] > 0
    if not streams:
        assert values["lost" if fault == "drops" else "foreign"] > 0
    assert outcome.faults
    assert report.text(outcome).splitlines()[-1].startswith("WRONG: ")


@pytest.mark.slow
async def test_an_answer_that_never_comes_is_found(tmp_path: Path) -> None:
    wire = Wire("withholds", streams=False)
    it = storm.Storm(storm.Plan(seconds=0.1, jobs=200, executor=wire, patience=1.0), tmp_path)
    try:
        outcome = await it.rage()
    finally:
        wire.gate.set()
    assert outcome.values["lost"] == 1
    assert len([fault for fault in outcome.faults if fault.startswith("a caller waits for ever")]) == 1


@pytest.fixture
def received(books: Books) -> Received:
    return books.received


def take_all(received: Received, *arrived: Any) -> dict[str, int]:
    """Of a stream of the job 7."""
    due = 0
    for value in arrived:
        due = received.take(value, 7, due)
    return received.counts()


def counts(right: int = 0, foreign: int = 0, lost: int = 0, doubled: int = 0) -> dict[str, int]:
    return {"right": right, "foreign": foreign, "lost": lost, "doubled": doubled}


def test_values_in_order_are_right(received: Received, books: Books) -> None:
    assert take_all(received, *[make(7, n) for n in range(300)]) == counts(right=300)
    assert books.faults == []


def test_a_value_of_another_job_is_foreign(received: Received, books: Books) -> None:
    assert take_all(received, make(7, 0), make(8, 1), make(7, 1)) == counts(right=2, foreign=1)
    assert books.faults == ["job 7 received value 1 of job 8 in the place of value 1"]


def test_a_value_with_the_body_of_another_is_foreign(received: Received, books: Books) -> None:
    assert take_all(received, make(7, 0)._replace(body=make(8, 0).body)) == counts(foreign=1)
    assert books.faults == ["job 7 received value 0 of job 7, whose body belongs to another in the place of value 0"]


def test_a_value_that_is_left_out_is_lost(received: Received) -> None:
    assert take_all(received, make(7, 0), make(7, 3), make(7, 4)) == counts(right=2, lost=2)


def test_a_value_that_comes_again_is_doubled(received: Received) -> None:
    assert take_all(received, make(7, 0), make(7, 0), make(7, 1)) == counts(right=2, doubled=1)


def test_something_else_instead_of_a_value_is_a_value_lost(received: Received) -> None:
    assert take_all(received, None) == counts(lost=1)


def test_only_the_first_wrong_values_are_told(received: Received, books: Books) -> None:
    take_all(received, *[make(8, n) for n in range(20)])
    assert len(books.faults) == MOST_NAMED


def test_a_call_knows_its_own_argument() -> None:
    check_argument(make(7, 0), 7)
    for argument in (make(8, 0), make(7, 0)._replace(body=b""), None):
        with pytest.raises(WrongArgument):
            check_argument(argument, 7)


def test_a_report_of_another_job_is_foreign(books: Books) -> None:
    books(JobProgressed(0.0, 1, "7", make(7, 3)))
    books(JobProgressed(0.0, 1, "7", make(8, 3)))
    assert books.received.counts() == counts(right=1, foreign=1)


def test_nine_values_of_ten_are_small_and_one_of_a_hundred_is_large() -> None:
    sizes = [len(body.memory if isinstance(body, Array) else body) for body in (make(7, n).body for n in range(3000))]
    small, large = sum(size <= 64 for size in sizes), sum(size == 2 << 20 for size in sizes)
    assert 0.87 < small / 3000 < 0.93
    assert 0.005 < large / 3000 < 0.015
    assert all(size <= 64 or 4096 <= size <= 65536 or size == 2 << 20 for size in sizes)


# ---- the command


@pytest.mark.parametrize(("faults", "status"), [([], 0), (["a permit is missing"], 1)])
def test_the_exit_status_tells(
    faults: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[storm.Plan] = []

    def run(plan: storm.Plan) -> storm.Outcome:
        plans.append(plan)
        return storm.Outcome(plan, 4, 61.0, 20_001, counts(7), {"returned": 20_001}, {}, NOTHING, NOTHING, faults)

    monkeypatch.setattr(storm, "run", run)
    assert main([]) == status
    assert plans[0].seconds == 60
    assert (plans[0].jobs, plans[0].values, plans[0].executor) == (20_000, 100_000, "process")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"chaos, seed {plans[0].seed}: 20,001 jobs on 4 slots in 61.0 s"
    assert lines[-1] == ("WRONG: a permit is missing" if faults else report.ALL_WELL)


def test_the_same_seed_asks_for_the_same_jobs(tmp_path: Path) -> None:
    drawn: list[Any] = []
    for seed in (1, 1, 2):
        chance = callers.chances(seed, 7)
        drawn.append([chance.random() for _ in range(3)])
    assert drawn[0] == drawn[1] != drawn[2]
