"""Items that fail: further attempts, limits of time, and when a run ends early."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import DeviceLost, WorkerDied
from director.cli import main
from director.cli._run.calls.rules import KINDS, Median, RetryRule, TimeLimit, kind_of, parse_kinds, parse_limit
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ended

    Run = Callable[..., Ended]

WORK = '''
import ctypes
import os
import time


def flaky(device, item):
    """Fails twice, on whatever device."""
    with open(f"tries-{item}", "a+") as file:
        file.write(f"{device.label}\\n")
        file.seek(0)
        tries = len(file.read().split())
    if tries < 3:
        raise ValueError(f"attempt {tries}")
    return tries


def crash_once(device, item):
    if item == "bad" and not os.path.exists("crashed"):
        open("crashed", "w").close()
        ctypes.string_at(0)
    return item


def crash(device, item):
    if item == "bad":
        ctypes.string_at(0)
    return item


def hang(device, item):
    if item == "bad":
        time.sleep(3600)
    return item


def echo(device, item):
    return item


def opens(item):
    if item == "bad":
        time.sleep(3600)
    return "decoded"


def hang_once(device, item):
    if item == "bad" and not os.path.exists("hung"):
        open("hung", "w").close()
        time.sleep(3600)
    return item


def full(device, item):
    if device.label == "cpu:0":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return device.label


def fails(device, item):
    raise ValueError(item)


def odd_fails(device, item):
    if int(item) % 2:
        raise ValueError(item)


def many(device, items):
    assert len(items) <= 4
    if "bad" in items:
        raise ValueError("bad is among them")
    return [f"{item} of {len(items)}" for item in items]
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    return tmp_path


def director(function: str, items: str, *words: str, devices: str = "cpu:2") -> int:
    Path("in.txt").write_text("".join(f"{item}\n" for item in items.split()))
    command = ["run", f"work.py:{function}", "in.txt", "--lines", "-o", "out.jsonl", "--devices", devices]
    return main([*command, *words])


def records() -> dict[str, dict[str, Any]]:
    lines = Path("out.jsonl").read_text().splitlines()
    found = {record["input"]: record for record in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


def entries(key: str) -> list[dict[str, Any]]:
    lines = map(json.loads, Path("out.jsonl.journal").read_text().splitlines())
    return [entry for entry in lines if entry.get("key") == key]


# ---- further attempts


@pytest.mark.parametrize(("retries", "status"), [("1", 1), ("2", 0)])
def test_an_error_is_tried_again_as_often_as_said(retries: str, status: int) -> None:
    assert director("flaky", "a", "--retries", retries, "--retry-on", "error") == status
    attempts = [(entry["status"], entry["attempt"]) for entry in entries("a")]
    assert attempts == [("retry", 1), ("failed", 2)] if status else [("retry", 1), ("retry", 2), ("ok", 3)]


def test_another_attempt_is_made_on_another_device() -> None:
    assert director("flaky", "a", "--retries", "1", "--retry-on", "error") == 1
    first, second = Path("tries-a").read_text().split()
    assert first != second


def test_a_device_whose_memory_is_full_is_left_to_others() -> None:
    assert director("full", "a b c d", "--retries", "1") == 0
    assert {record["result"] for record in records().values()} == {"cpu:1"}


def test_errors_of_the_function_are_not_tried_again_unasked() -> None:
    assert director("flaky", "a", "--retries", "5") == 1
    assert len(Path("tries-a").read_text().split()) == 1


def test_attempts_that_were_made_before_a_kill_count() -> None:
    assert director("flaky", "a b", "--retries", "1", "--retry-on", "error") == 1
    journal = Path("out.jsonl.journal")
    lines = journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"status":"failed"' not in line]  # as a kill before the second attempt leaves it
    journal.write_text("".join(kept))
    for name in ("tries-a", "tries-b"):
        Path(name).unlink()
    assert director("flaky", "a b", "--retries", "1", "--retry-on", "error", "--resume") == 1
    assert len(Path("tries-a").read_text().split()) == 1
    Path("tries-a").unlink()
    assert director("flaky", "a b", "--retries", "2", "--retry-on", "error", "--retry-failed") == 0
    assert entries("a")[-1]["attempt"] == 3


def test_a_process_that_dies_takes_its_item_alone(run: Run) -> None:
    Path("in.txt").write_text("a\nbad\nb\nc\n")
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu:2", "--executor", "process")
    assert run("run", "work.py:crash", *words).status == 1
    assert records()["bad"]["error"]["type"] == "director.errors.WorkerDied"
    assert sorted(record["result"] for record in records().values() if "result" in record) == ["a", "b", "c"]
    assert run("run", "work.py:crash_once", *words, "--fresh", "--retries", "1").status == 0


def test_kinds_of_failures() -> None:
    device = None
    assert kind_of(ValueError()) == "error"
    assert kind_of(JobTimeout("running")) == "timeout"
    assert kind_of(WorkerDied(-11, device)) == "died"  # type: ignore[arg-type]
    assert kind_of(DeviceLost(device, "gone")) == "died"  # type: ignore[arg-type]
    assert kind_of(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")) == "oom"
    assert kind_of(RuntimeError("CUDA error: an illegal memory access was encountered")) == "died"


def test_pauses_double() -> None:
    rule = RetryRule(3, frozenset(("error",)), 0.5)
    assert [rule.pause(ValueError(), attempts) for attempts in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, None]
    assert rule.pause(JobTimeout("running"), 1) is None
    assert RetryRule(999, frozenset(("error",)), 200.0).pause(ValueError(), 999) == 300.0


def test_words_for_kinds() -> None:
    assert parse_kinds("died, oom,timeout,error") == frozenset(KINDS)
    with pytest.raises(argparse.ArgumentTypeError, match="'fire' is none of: died, oom, timeout, error"):
        parse_kinds("oom,fire")


# ---- limits of time


def test_an_item_that_hangs_is_ended_and_stalls_nothing(run: Run) -> None:
    Path("in.txt").write_text("bad\n" + "".join(f"{number}\n" for number in range(20)))
    ended = run("run", "work.py:hang", "in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu", "--timeout", "0.2")
    assert ended.status == 1
    assert records()["bad"]["error"] == {
        "type": "director.errors.JobTimeout",
        "message": "The call took longer than --timeout allows, and its process was ended.",
    }
    assert len(records()) == 21


def test_the_time_of_importing_is_not_that_of_an_item(run: Run, here: Path) -> None:
    (here / "heavy.py").write_text("import time\ntime.sleep(0.6)\ndef f(device, item): return item\n")
    Path("in.txt").write_text("a\nb\n")
    assert run("run", "heavy.py:f", "in.txt", "--lines", "--devices", "cpu", "--timeout", "0.3").status == 0


def test_a_hung_item_is_tried_again(run: Run) -> None:
    Path("in.txt").write_text("a\nbad\n")
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu", "--timeout", "0.2", "--retries", "1")
    assert run("run", "work.py:hang_once", *words).status == 0
    assert [(entry["status"], entry["attempt"]) for entry in entries("bad")] == [("retry", 1), ("ok", 2)]


def test_threads_that_hang_end_the_run_when_they_hold_every_slot(run: Run) -> None:
    """And say what would not."""
    Path("in.txt").write_text("bad\n" + "".join(f"{number}\n" for number in range(100)))
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu", "--timeout", "0.2", "--executor", "thread")
    ended = run("run", "work.py:hang", *words)
    assert ended.status == 1
    assert "every slot is held by a call that has timed out, which a thread can't end: --executor process" in ended.err
    assert list(records()) == ["bad"]
    assert "100 items not run" in ended.err
    assert "to go on: director run work.py:hang" in ended.err


def test_a_limit_of_the_median(run: Run) -> None:
    Path("in.txt").write_text("".join(f"{number}\n" for number in range(50)) + "bad\nlast\n")
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu", "--timeout", "1000%")
    assert run("run", "work.py:hang", *words).status == 1
    assert {key for key, record in records().items() if "error" in record} >= {"bad"}
    assert len(records()) == 52


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_an_item_that_began_before_there_was_a_median_is_ended_too(executor: str, run: Run) -> None:
    Path("in.txt").write_text("bad\n" + "".join(f"{number}\n" for number in range(50)))
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu:2", "--timeout", "100000%")
    assert run("run", "work.py:hang", *words, "--executor", executor).status == 1
    assert records()["bad"]["error"]["type"] == "director.errors.JobTimeout"
    assert len(records()) == 51


def test_seconds_beside_the_median_hold_until_there_is_one(run: Run) -> None:
    """One slot, and its first item hangs: there will never be a median."""
    Path("in.txt").write_text("bad\n1\n")
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu", "--timeout", "500%,1")
    assert run("run", "work.py:hang", *words).status == 1
    assert {key: "error" in record for key, record in records().items()} == {"bad": True, "1": False}


def test_a_decoder_that_hangs_fails_its_item_and_stalls_nothing(run: Run) -> None:
    """With one thread for all."""
    Path("in.txt").write_text("bad\n1\n2\n")
    words = ("in.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu", "--timeout", "3", "--executor", "thread")
    ended = run("run", "work.py:echo", *words, "--decode", "work.py:opens", "--decode-threads", "1")
    assert ended.status == 1
    assert records()["bad"]["error"] == {
        "type": "director.errors.JobTimeout",
        "message": "The decoder took longer than --timeout allows, and its thread was abandoned.",
    }
    assert records()["1"]["result"] == records()["2"]["result"] == "decoded"


def test_words_for_limits() -> None:
    assert parse_limit("30") == TimeLimit(30)
    assert parse_limit("300%") == TimeLimit(percent=300)
    assert parse_limit("300%,60") == TimeLimit(60, 300)
    for wrong in ("100%", "-1", "0", "nan", "nan%", "1e9%", "%", "\u0663", "60,300%", "300%,", "300%,0", "3,4"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no number of seconds"):
            parse_limit(wrong)


def test_a_median_needs_ten() -> None:
    median = Median()
    for number in range(9):
        median.add(float(number))
    assert median.read() is None
    median.add(9.0)
    assert median.read() == 4.5
    for _ in range(1000):
        median.add(7.0)
    assert median.read() == 7.0


# ---- the end before the input's


@pytest.mark.parametrize(
    ("halt", "told"),
    [
        ("soon,fail=3", "halted after 3 failures: 5 items"),
        ("soon,success=4", "halted after 4 that succeeded: 8 items"),
        ("soon,done=6", "halted after 6 items: 6 items"),
        ("soon,done=20%", "halted after 8 items: 8 items"),
    ],
)
def test_halts(halt: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The items are 1 to 40, and the odd ones fail."""
    items = " ".join(map(str, range(1, 41)))
    assert director("odd_fails", items, "--halt", halt, "--window", "1", devices="cpu:1") == 3
    assert told in capsys.readouterr().err
    assert director("odd_fails", items, "--resume", devices="cpu:1") == 1
    assert len(records()) == 40


def test_a_failure_that_is_tried_again_is_none_yet() -> None:
    assert director("flaky", "a b", "--retries", "2", "--retry-on", "error", "--halt", "now") == 0


# ---- batches


@pytest.mark.parametrize("size", ["4", "1"])
def test_batches_keep_their_items_apart(size: str) -> None:
    assert director("many", "a b bad c d e f g", "--batch-size", size, devices="cpu:1") == 1
    found = records()
    assert len(found) == 8
    assert found["bad"]["error"]["message"] == "bad is among them"
    assert all(record["result"].startswith(f"{key} of ") for key, record in found.items() if key != "bad")
    assert len(entries("a")) == 1


def test_batches_as_large_as_the_memory_allows(capsys: pytest.CaptureFixture[str]) -> None:
    Path("work.py").write_text(
        "def many(device, items):\n"
        "    if len(items) > 3: raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')\n"
        "    return [len(items)] * len(items)\n"
    )
    assert director("many", " ".join(map(str, range(40))), "--batch-size", "auto", devices="cpu:1") == 0
    assert max(record["result"] for record in records().values()) > 1


@pytest.mark.parametrize("wrong", ["0", "-1", "big", "1.5"])
def test_no_batch_size(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert director("many", "a", f"--batch-size={wrong}") == 2
    assert "neither a whole number" in capsys.readouterr().err
