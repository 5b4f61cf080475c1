"""`director run` as a user runs it, in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Child, Ended, Gates

    Run = Callable[..., Ended]
    Start = Callable[..., Child]

CPU = ("--devices", "cpu:2")

pytestmark = pytest.mark.usefixtures("work")


def lines(*values: object) -> bytes:
    return "".join(f"{value}\n" for value in values).encode()


# ---- results


def test_one_record_per_item(run: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    ended = run("run", "work.py:echo", "*.png", *CPU)
    assert ended.status == 0
    records = sorted(ended.records, key=lambda record: record["index"])
    assert [list(record) for record in records] == [["index", "input", "result", "device", "seconds"]] * 2
    assert [record["input"] for record in records] == ["a.png", "b.png"] == [record["result"] for record in records]
    assert all(record["device"] in ("cpu:0", "cpu:1") and 0 <= record["seconds"] < 60 for record in records)


def test_errors_stand_beside_results(run: Run) -> None:
    ended = run("run", "work:odd_fails", "-", "--lines", "--ordered", *CPU, stdin=lines(0, 1, 2))
    assert ended.status == 1
    assert [record.get("result") for record in ended.records] == [0, None, 2]
    assert ended.records[1]["error"] == {"type": "ValueError", "message": "1 is odd\nand that is that"}
    assert 'failed: "1": ValueError: 1 is odd\n' in ended.err
    assert "3 items" in ended.err
    assert "2 succeeded, 1 failed" in ended.err
    assert "1 item failed with ValueError" in ended.err


def test_a_failure_names_the_file_however_deep_it_is(run: Run) -> None:
    path = "folder/" * 20 + "image-0001.jpg"
    ended = run("run", "work:fails", "-", *CPU, stdin=lines(path))
    [line] = [line for line in ended.err.splitlines() if line.startswith("failed: ")]
    assert line.startswith('failed: "folder/folder/fo...')
    assert '/folder/image-0001.jpg": ValueError: ' in line


def test_a_result_that_is_not_json_names_no_private_module(run: Run) -> None:
    ended = run("run", "work:returns_bytes", "-", "--lines", *CPU, stdin=lines(1))
    assert ended.records[0]["error"]["type"] == "NotJSON"
    assert 'failed: "1": NotJSON: result is a bytes, which JSON can' in ended.err
    assert "1 item failed with NotJSON" in ended.err


def test_errors_do_not_command_the_terminal(run: Run) -> None:
    ended = run("run", "work:fails", "-", "--lines", *CPU, stdin=b"\x1b[2Jowned\n")
    assert 'failed: "\\u001b[2Jowned": ValueError: \\x1b[2Jowned\n' in ended.err
    assert "\x1b" not in ended.err + ended.out


def test_an_error_that_can_not_say_what_it_is(run: Run) -> None:
    ended = run("run", "work:falls_silent", "-", "--lines", *CPU, stdin=lines(1, 2))
    assert ended.status == 1
    told = {"type": "work.Mute", "message": "(its str() raised RuntimeError)"}
    assert [record["error"] for record in ended.records] == [told, told]
    assert 'failed: "1": work.Mute: (its str() raised RuntimeError)\n' in ended.err


def test_records_in_and_out(run: Run) -> None:
    ended = run("run", "work:echo", "-", "--jsonl", "--ordered", *CPU, stdin=b'{"a":[1.50]}\n{broken\n"x"\n')
    assert ended.status == 1
    assert '"input": {"a":[1.50]}, "result": {"a": [1.5]}' in ended.out
    assert ended.records[1]["input"] == "{broken"
    assert ended.records[1]["error"]["type"] == "json.decoder.JSONDecodeError"
    assert ended.records[1]["device"] is None


def test_input_order(run: Run, start: Start, gates: Gates) -> None:
    """The first item is the last to finish."""
    first, second = gates.make("first"), gates.make("second")
    child = start("run", "work:gated", "-", "--lines", "--ordered", *CPU)
    child.stdin.write(lines(first, second))
    child.stdin.flush()
    gates.wait_for(2)
    gates.open("second")
    gates.open("first")
    assert [record["input"] for record in child.end().records] == [first, second]


def test_completion_order(start: Start, gates: Gates) -> None:
    """The second item's line is there while the first still runs, and the input is still open."""
    first, second = gates.make("first"), gates.make("second")
    child = start("run", "work:gated", "-", "--lines", *CPU)
    child.stdin.write(lines(first, second))
    child.stdin.flush()
    gates.wait_for(2)
    gates.open("second")
    assert json.loads(child.stdout.readline())["input"] == second
    gates.open("first")
    assert [record["input"] for record in child.end().records] == [first]


def test_a_result_that_json_cannot_hold_fails_its_item(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def f(device, item): return {1} if item == 'b' else item")
    ended = run("run", "other:f", "-", "--lines", "--ordered", *CPU, stdin=lines("a", "b", "c"))
    assert ended.status == 1
    assert [record.get("result") for record in ended.records] == ["a", None, "c"]
    assert "result is a set, which JSON can't hold: return sorted(x)" in ended.records[1]["error"]["message"]


def test_system_exit_of_an_item_is_its_error(run: Run) -> None:
    ended = run("run", "work:stop", "-", "--lines", *CPU, stdin=lines("a"))
    assert ended.status == 1
    assert ended.records[0]["error"] == {"type": "SystemExit", "message": "stop"}


def test_tracebacks_on_request(run: Run) -> None:
    ended = run("run", "work:odd_fails", "-", "--lines", "--traceback", *CPU, stdin=lines(1))
    assert ", in odd_fails\n" in ended.records[0]["error"]["traceback"]


def test_only_some_failures_are_shown(run: Run) -> None:
    ended = run("run", "work:odd_fails", "-", "--lines", *CPU, stdin=lines(*range(1, 61, 2)))
    assert ended.err.count("failed: ") == 10
    assert ended.err.count("further failures are only in the results") == 1
    assert len(ended.records) == 30


def test_nothing_to_do(run: Run) -> None:
    ended = run("run", "work:echo", "-", "--lines", *CPU)
    assert (ended.status, ended.out) == (0, "")
    assert "done: 0 items" in ended.err


# ---- where the results go


def test_an_output_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("what was there before, and it was longer than what comes now\n" * 9)
    ended = run("run", "work:echo", "-", "--lines", "-o", "results.jsonl", "--fresh", *CPU, stdin=lines("a"))
    assert (ended.status, ended.out) == (0, "")
    assert json.loads((tmp_path / "results.jsonl").read_text())["result"] == "a"
    assert ended.err.endswith("results in results.jsonl\n")


def test_a_run_that_cannot_begin_leaves_the_old_results(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("precious\n")
    for wrong in (("work:ecco", "--devices", "cpu"), ("work:echo", "--devices", "nonsense")):
        assert run("run", wrong[0], "-", *wrong[1:], "-o", "results.jsonl", "--fresh").status == 2
    assert not (tmp_path / "results.jsonl.journal").exists()
    assert (tmp_path / "results.jsonl").read_text() == "precious\n"


def test_what_the_users_code_prints_does_not_get_between_the_results(run: Run) -> None:
    ended = run("run", "work:noisy", "-", "--lines", *CPU, stdin=lines("a", "b"))
    assert {record["result"] for record in ended.records} == {"a", "b"}
    assert ended.err.count("noise from Python") == 2
    assert ended.err.count("noise from C") == 2


def test_a_full_disk_is_told(run: Run) -> None:
    options = "--lines", "-o", "/dev/full", "--devices", "cpu:1", "--window", "64"
    ended = run("run", "work:echo", "-", *options, stdin=lines(*map(str, range(200))))
    assert ended.status == 1
    assert "the results can't be written: [Errno 28] No space left on device" in ended.err
    assert re.search(r"^cpu:0 +\d+ +100\.0 % ", ended.err, re.M), "the share is of the calls, whose results are lost"


def test_a_reader_that_leaves_ends_the_run_quietly(start: Start) -> None:
    child = start("run", "work:echo", "-", "--lines", *CPU)
    child.stdin.write(lines("a"))
    child.stdin.flush()
    child.stdout.readline()
    child.stdout.close()
    child.stdin.write(lines("b"))
    child.stdin.flush()  # and stays open: the run ends all the same
    assert child.wait() == 141
    assert child.stderr.read() == b""


# ---- devices, slots, models


@pytest.mark.parametrize(
    ("words", "status", "number"), [((), 1, 40), (("--halt", "soon,fail=5"), 3, 5), (("--json",), 1, 40)]
)
def test_a_run_goes_on_though_nobody_can_read_its_messages(
    words: tuple[str, ...], status: int, number: int, tmp_path: Path
) -> None:
    """As when the terminal is gone, and the run was told to outlive it."""
    (tmp_path / "in.txt").write_bytes(lines(*range(40)))
    reader, stderr = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "director", "run", "work.py:fails", "in.txt", "--lines", "-o", "out.jsonl"]
    ended = subprocess.run([*command, "--devices", "cpu:1", *words], cwd=tmp_path, stderr=stderr, check=False)
    os.close(stderr)
    assert ended.returncode == status
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == number


def test_all_devices_and_slots_are_used(start: Start, gates: Gates) -> None:
    paths = [gates.make(f"{number}") for number in range(5)]
    child = start("run", "work:gated", "-", "--lines", "--devices", "simulated:2", "--slots", "0=1,1=3")
    child.stdin.write(lines(*paths))
    child.stdin.flush()
    begun = gates.wait_for(4)
    for name in {"0", "1", "2", "3", "4"}:
        if name in begun:
            gates.open(name)
    last = gates.wait_for(1)
    assert begun | last == {"0", "1", "2", "3", "4"}
    gates.open(last.pop())
    ended = child.end()
    assert {record["device"] for record in ended.records} == {"simulated:0", "simulated:1"}


@pytest.mark.parametrize("model", ["work.py:model", "work.py:load"])
def test_a_model_or_its_loader(model: str, run: Run) -> None:
    ended = run("run", "work.py:use", "-", "--lines", "--model", model, *CPU, stdin=lines("a"))
    (record,) = ended.records
    assert record["result"] == [f"replica on {record['device']}", "a"]


def test_a_model_that_cannot_be_loaded_is_one_failure(run: Run) -> None:
    ended = run("run", "work:use", "-", "--lines", "--model", "work:broken_load", *CPU, stdin=lines("a", "b"))
    assert (ended.status, ended.out) == (1, "")
    assert "OSError: no weights here" in ended.err
    assert ended.err.endswith("director run: broken_load could not be loaded (see above); nothing was run\n")


def test_a_timeout_fails_its_item(start: Start, gates: Gates) -> None:
    stuck, quick = gates.make("stuck"), gates.make("quick")
    child = start("run", "work:gated", "-", "--lines", "--timeout", "0.2", "--executor", "thread", *CPU)
    child.stdin.write(lines(stuck))
    child.stdin.flush()
    gates.wait_for(1)
    record = json.loads(child.stdout.readline())
    assert record["error"]["type"] == "director.errors.JobTimeout"
    gates.open("stuck")
    child.stdin.write(lines(quick))
    child.stdin.flush()
    gates.wait_for(1)
    gates.open("quick", "done")
    ended = child.end()
    assert [record["result"] for record in ended.records] == ["done"]
    assert ended.status == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("work:echo", "work.py", "--devices", "bananas"), "director run: 'bananas' names no device"),
        (("work:echo", "work.py", "--devices", "cpu", "--slots", "7=2"), "director run: 7 names 0 of these devices"),
        (
            ("work:echo", "work.py", "--devices", "cpu", "-o", "no/file"),
            "director run: no/file can't be written: there is no folder",
        ),
        (
            ("work:use", "work.py", "--model", "work:number"),
            "is neither a Model nor a loader, a function of a device: 3",
        ),
        (("work:only_item", "work.py"), "can't be called as only_item(device, item)"),
        (("work:only_item", "work.py", "--model", "work:model"), "can't be called as only_item(replica, item)"),
    ],
)
def test_usage(arguments: tuple[str, ...], complaint: str, run: Run) -> None:
    ended = run("run", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert complaint in ended.err


# ---- halt


def test_halt_soon_finishes_what_runs(start: Start, gates: Gates) -> None:
    running, waiting = gates.make("running"), gates.make("waiting")
    child = start("run", "work:gated", "-", "--lines", "--halt", "soon", *CPU)
    child.stdin.write(lines(running, "/nowhere/to/be/found", waiting))
    child.stdin.flush()
    child.read_error_until("failed: ")
    gates.wait_for(1)
    gates.open("running", "finished")
    ended = child.end()
    assert ended.status == 3
    assert {record.get("result") for record in ended.records} == {None, "finished"}
    assert "halted after 1 failure: 2 items" in ended.err
    assert "1 item not run" in ended.err


def test_after_the_failure_that_halts_no_call_begins(run: Run) -> None:
    """A slot takes its next item itself, before the event loop knows of the failure; that must not run either."""
    ended = run("run", "work:odd_fails", "-", "--lines", "--halt", "3", "--devices", "cpu", stdin=lines(*range(1, 50)))
    assert ended.status == 3
    assert [record["input"] for record in ended.records] == ["1", "2", "3", "4", "5"]


def test_halt_now_leaves_what_runs(start: Start, gates: Gates) -> None:
    running = gates.make("running")
    child = start("run", "work:gated", "-", "--lines", "--halt", "now,fail=2", *CPU)
    child.stdin.write(lines(running, "/nowhere/1"))
    child.stdin.flush()
    gates.wait_for(1)
    assert json.loads(child.stdout.readline())["input"] == "/nowhere/1"
    child.stdin.write(lines("/nowhere/2"))
    child.stdin.flush()
    ended = child.end()
    assert ended.status == 3
    assert [record["input"] for record in ended.records] == ["/nowhere/2"]
    assert "1 item not run" in ended.err


# ---- what is told


def test_quiet(run: Run) -> None:
    ended = run("run", "work:odd_fails", "-", "--lines", "--quiet", *CPU, stdin=lines(1, 2))
    assert (ended.status, ended.err) == (1, "")
    assert len(ended.records) == 2


def test_the_summary_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(lines(*range(10)))
    ended = run("run", "work:odd_fails", "input", "--lines", "--json", *CPU)
    summary: dict[str, Any] = json.loads(ended.err)
    assert summary["end"] == "done"
    assert (summary["succeeded"], summary["failed"], summary["not_run"]) == (5, 5, 0)
    assert summary["errors"] == {"ValueError": 5}
    assert [device["device"] for device in summary["devices"]] == ["cpu:0", "cpu:1"]
    assert sum(device["items"] for device in summary["devices"]) == 10
    assert summary["per_second"] == pytest.approx(10 / summary["seconds"], rel=0.01)


# ---- memory


@pytest.mark.slow
def test_an_endless_input_takes_bounded_memory(tmp_path: Path) -> None:
    """300 MB pass through in lines of 1 MB; a child of that child measures, for a peak is not taken back."""
    (tmp_path / "feed.py").write_text("import sys\nfor _ in range(300): sys.stdout.write('x' * 999_999 + '\\n')")
    command = f"{sys.executable} feed.py | {sys.executable} -m director run work:size - --lines --window 8"
    command += " --devices cpu:2 --quiet -o /dev/null"
    measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1], shell=True, check=True);"
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    kilobytes = subprocess.run(
        [sys.executable, "-c", measure, command], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert int(kilobytes) < 150_000


# ---- a terminal


def through_terminal(command: list[str], folder: Path, *, results_too: bool) -> tuple[int, str, bytes]:
    """Run with the standard error on a terminal; status, what came there, and what went to the standard output."""
    master, slave = pty.openpty()
    with (folder / "stdout").open("wb") as file:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=slave if results_too else file,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        )
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
    os.close(master)
    return child.wait(), shown.decode(), (folder / "stdout").read_bytes()


@pytest.mark.parametrize("results_too", [False, True])
def test_bars_on_a_terminal(results_too: bool, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    (tmp_path / "slow.py").write_text("import time\ndef f(device, item): time.sleep(0.3); return item")
    (tmp_path / "input").write_bytes(lines(*"abcde"))
    command = [sys.executable, "-m", "director", "run", "slow:f", "input", "--lines", *CPU]
    status, shown, results = through_terminal(command, tmp_path, results_too=results_too)
    assert status == 0
    assert " of 5 (" in shown
    assert "cpu:1" in shown
    assert "busy" in shown
    assert "━" in shown
    assert "done: 5 items" in shown
    assert results.count(b'"result"') == (0 if results_too else 5)
    assert shown.count('"result"') == (5 if results_too else 0)


def test_plain_lines_elsewhere(start: Start, gates: Gates) -> None:
    path = gates.make("gate")
    child = start("run", "work:gated", "-", "--lines", *CPU)
    child.stdin.write(lines(path))
    child.stdin.flush()
    gates.wait_for(1)
    line = child.read_error_until("busy")
    assert line.startswith("2 s  0 done  0/s  cpu:0 ")
    gates.open("gate")
    assert child.end().status == 0


# ---- the report


def test_a_report_about_the_run(run: Run, tmp_path: Path) -> None:
    """A page or a trace, by the ending of its name; written whatever became of the items."""
    for name in ("page.html", "trace.json"):
        ended = run("run", "work:odd_fails", "-", "--lines", "--report", name, *CPU, stdin=lines(0, 1, 2))
        assert ended.status == 1
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>director run work:odd_fails" in page
    assert "ValueError: 1 is odd" in page
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert sum(event["name"] == "submit odd_fails" for event in trace["traceEvents"]) == 3


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("page.txt", "--report takes a page.html or a trace.json, not page.txt"),
        ("no/page.html", "no/page.html can't be written: No such file or directory"),
    ],
)
def test_a_report_that_can_not_be_is_refused_before_anything_runs(run: Run, name: str, why: str) -> None:
    ended = run("run", "work:echo", "-", "--report", name, *CPU, stdin=lines(1))
    assert (ended.status, ended.out) == (2, "")
    assert why in ended.err
