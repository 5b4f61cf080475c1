"""A short storm, and whether the books would find out."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from director._bench.apart import run_apart
from director._bench.chaos import callers, report, storm
from director._bench.chaos.books import MOST_NAMED, Books
from director._bench.chaos.calls import note
from director._bench.chaos.remains import Remains
from director.cli import main
from director.events import JobSubmitted, JobSucceeded

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes need Linux")
NOTHING = Remains(0, 20_000, 20_000_000, 10, 0, 0)


def test_all_is_well_after_a_short_storm() -> None:
    command = [sys.executable, "-W", "error", "-m", "director", "bench"]
    options = ["--chaos", "--seconds", "4", "--jobs", "400", "--seed", "5"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("chaos, seed 5: ")
    assert last.startswith("All is well")
    assert " children killed" in done.stdout
    assert "Traceback" not in done.stderr


def test_all_is_well_with_threads() -> None:
    outcome = run_apart(storm.run, storm.Plan(seconds=2, jobs=400, seed=6, executor="thread"))
    assert outcome.faults == []
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
        (NOTHING._replace(jobs=3), "3 jobs are kept alive by somebody"),
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


async def test_a_wrong_answer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_is_right", lambda *_: False)
    it = storm.Storm(storm.Plan(seconds=0.1, jobs=20, executor="thread"), tmp_path)
    outcome = await it.rage()
    assert any("has a wrong answer" in fault for fault in outcome.faults)


# ---- the command


@pytest.mark.parametrize(("faults", "status"), [([], 0), (["a permit is missing"], 1)])
def test_the_exit_status_tells(
    faults: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[storm.Plan] = []

    def run(plan: storm.Plan) -> storm.Outcome:
        plans.append(plan)
        return storm.Outcome(plan, 61.0, 20_001, {"returned": 20_001}, {"children killed": 9}, NOTHING, NOTHING, faults)

    monkeypatch.setattr(storm, "run", run)
    assert main(["bench", "--chaos"]) == status
    assert plans[0].seconds == 60
    assert plans[0].jobs == 20_000
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"chaos, seed {plans[0].seed}: 20,001 jobs on 4 slots in 61.0 s"
    assert lines[-1] == ("WRONG: a permit is missing" if faults else report.ALL_WELL)


def test_the_same_seed_asks_for_the_same_jobs(tmp_path: Path) -> None:
    drawn: list[Any] = []
    for seed in (1, 1, 2):
        chance = callers.chances(seed, 7)
        drawn.append([chance.random() for _ in range(3)])
    assert drawn[0] == drawn[1] != drawn[2]
