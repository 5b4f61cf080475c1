"""Results in files of their own, lists of items, values made by other threads, and what is told beforehand."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ended

    Run = Callable[..., Ended]

WORK = """
import threading

from director import Model


def f(device, path):
    return {"path": path}


def text(device, path):
    return "größe"


def raw(device, path):
    return b"\\xff\\x00"


def fails(device, path):
    raise ValueError(path)


def odd(device, item):
    return {1, 2}


def decode(item):
    if item == "bad":
        raise ValueError("no picture")
    return [item, threading.current_thread().name]


def show(device, value):
    return [value, threading.current_thread().name]


def load(device):
    raise AssertionError("a dry run loads nothing")


model = Model(load)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    for name in ("in/a.png", "in/deep/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def director(function: str, *words: str) -> int:
    return main(["run", f"work.py:{function}", *words, "--devices", "cpu:2"])


def records(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


SAVED = ("in/**/*.png", "--out-dir", "boxes")


# ---- a file for each item


@pytest.mark.parametrize(
    ("function", "template", "names", "content"),
    [
        ("f", None, ["a.png.json", "deep/b.png.json"], b'{"path": "in/a.png"}\n'),
        ("text", "{parent}/{stem}.txt", ["a.txt", "deep/b.txt"], "größe".encode()),
        ("raw", "{index:03}-{name}.bin", ["000-a.png.bin", "001-b.png.bin"], b"\xff\0"),
        ("raw", "{key}", ["a.png", "deep%2Fb.png"], b"\xff\0"),
    ],
)
def test_a_file_for_each_result(function: str, template: str | None, names: list[str], content: bytes) -> None:
    assert director(function, *SAVED, *(() if template is None else ("--template", template))) == 0
    assert files("boxes") == names
    assert (Path("boxes") / names[0]).read_bytes() == content
    found = sorted(record["output"] for record in records("boxes.jsonl"))
    assert found == [f"boxes/{name}" for name in names]


def test_files_are_gone_on_with_too() -> None:
    assert director("f", *SAVED) == 0
    assert director("f", *SAVED) == 4
    before = Path("boxes/a.png.json").stat()
    Path("in/c.png").touch()
    assert director("f", *SAVED, "--resume") == 0
    assert Path("boxes/a.png.json").stat().st_mtime_ns == before.st_mtime_ns
    assert files("boxes") == ["a.png.json", "c.png.json", "deep/b.png.json"]


def test_a_file_of_results_that_is_gone_is_made_again() -> None:
    assert director("f", *SAVED) == 0
    Path("boxes/a.png.json").unlink()
    assert director("f", *SAVED, "--resume") == 0
    assert files("boxes") == ["a.png.json", "deep/b.png.json"]
    assert len(records("boxes.jsonl")) == 2


def test_files_that_no_run_has_made_are_made_again_or_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("boxes").mkdir()
    Path("boxes/a.png.json").write_text("of another program")
    assert director("f", *SAVED, "--skip-existing") == 0
    assert "1 item left out: their files are there" in capsys.readouterr().err
    assert Path("boxes/a.png.json").read_text() == "of another program"
    assert director("f", *SAVED, "--resume") == 0
    assert json.loads(Path("boxes/a.png.json").read_text()) == {"path": "in/a.png"}
    assert director("f", "in/*.png", "--skip-existing") == 2


def test_items_that_fail_have_records_and_no_files() -> None:
    assert director("fails", *SAVED, "--failures", "failed.jsonl") == 1
    assert not Path("boxes").exists()
    assert [record["error"]["type"] for record in records("failed.jsonl")] == ["ValueError"] * 2


def test_two_items_of_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/b.png").touch()
    assert director("f", *SAVED, "--template", "{stem}.json") == 2
    assert "items 1 and 2 would both be saved to boxes/b.json" in capsys.readouterr().err
    assert not Path("boxes").exists()


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{nonsense}", "--template has {nonsense}; there are {relpath}, {stem}"),
        ("{relpath.__class__}", "--template has {relpath.__class__}"),
        ("one", "gives all items one file"),
        ("{parent}/x", "gives all items one file"),
        ("{", "--template '{'"),
        ("../{relpath}", "is outside of --out-dir boxes"),
        ("/tmp/{relpath}", "is outside of --out-dir boxes"),
    ],
)
def test_templates_that_make_no_sense(template: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert director("f", *SAVED, "--template", template) == 2
    assert told in capsys.readouterr().err


def test_a_listed_path_does_not_lead_out_of_the_folder(run: Run) -> None:
    command = ("run", "work.py:text", "-", "--out-dir", "boxes", "--devices", "cpu")
    assert run(*command, stdin=b"../../escaped.png\n/etc/passwd\nin/a.png\n").status == 1
    assert files("boxes") == ["in/a.png.json"]
    assert not Path("../../escaped.png.json").exists()


def test_lines_are_saved_under_their_keys() -> None:
    Path("in.txt").write_text("a/b\nc\n../d\nsame\nsame\n")
    assert director("text", "in.txt", "--lines", "--out-dir", "texts") == 0
    assert files("texts") == ["..%2Fd.json", "a%2Fb.json", "c.json", "same%232.json", "same.json"]


# ---- lists of files


def test_files_from_a_list(here: Path) -> None:
    with gzip.open("list.gz", "wb") as file:
        file.write(b"in/a.png\n\nin/deep/b.png\n")
    assert director("f", "--files-from", "list.gz", "-o", "out.jsonl") == 0
    assert sorted(record["input"] for record in records("out.jsonl")) == ["in/a.png", "in/deep/b.png"]
    Path("more").write_bytes(b"in/a.png\0in/c\nd.png\0")
    assert director("f", "in/*.png", "--files-from", "more", "-0", "-o", "both.jsonl") == 0
    assert sorted(record["input"] for record in records("both.jsonl")) == ["in/a.png", "in/a.png", "in/c\nd.png"]


def test_without_any_input_it_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert director("f") == 2
    assert "the following arguments are required: INPUT" in capsys.readouterr().err


def test_a_long_field_of_csv() -> None:
    Path("in.csv").write_text("name\n" + "x" * 300_000 + "\n")
    assert director("show", "in.csv", "--csv", "-o", "out.jsonl") == 0


def test_rows_of_csv() -> None:
    Path("in.csv").write_text('name,n\n"a, b",1\n"two\nlines",2\nonly one\n\n')
    assert director("show", "in.csv", "--csv", "-o", "out.jsonl") == 1
    found = {record["index"]: record for record in records("out.jsonl")}
    assert found[0]["input"] == {"name": "a, b", "n": "1"} == found[0]["result"][0]
    assert found[1]["input"] == {"name": "two\nlines", "n": "2"}
    assert found[2]["error"]["message"] == "in.csv, line 5 has 1 fields, and the first row names 2"


# ---- values made by other threads


def test_values_are_made_off_the_devices_threads() -> None:
    Path("in.txt").write_text("a\nbad\nb\n")
    words = ("in.txt", "--lines", "--decode", "work.py:decode", "--decode-threads", "2", "--ordered", "-o", "out.jsonl")
    assert director("show", *words) == 1
    first, bad, last = records("out.jsonl")
    assert (first["input"], last["input"]) == ("a", "b")
    (item, decoder), worker = first["result"]
    assert (item, decoder.startswith("director-decode-")) == ("a", True)
    assert worker != decoder
    assert bad["error"] == {"type": "ValueError", "message": "no picture"}


def test_a_decoder_of_the_wrong_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert director("show", "in/*.png", "--decode", "work.py:show") == 2
    assert "work.py:show can't be called as show(item)" in capsys.readouterr().err


# ---- what would be run


def test_a_dry_run_tells_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert director("f", *SAVED, "--dry-run") == 0
    assert "2 items to run with work.py:f" in capsys.readouterr().out
    assert files(".") == ["in/a.png", "in/deep/b.png", "work.py"] or not Path("boxes").exists()
    assert not Path("boxes.jsonl").exists()
    assert not Path("boxes.jsonl.journal").exists()


def test_a_dry_run_of_a_resumed_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert director("f", *SAVED) == 0
    Path("in/a.png").write_text("edited")
    Path("in/c.png").touch()
    before = Path("boxes.jsonl").read_bytes(), Path("boxes.jsonl.journal").read_bytes()
    capsys.readouterr()
    assert director("f", *SAVED, "--resume", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["to_run"], plan["new"], plan["changed"], plan["ok"]) == (2, 1, 1, 1)
    assert plan["examples"] == ["boxes/a.png.json", "boxes/c.png.json"]
    assert (Path("boxes.jsonl").read_bytes(), Path("boxes.jsonl.journal").read_bytes()) == before


def test_a_dry_run_loads_no_model_and_reads_no_stream(capfd: pytest.CaptureFixture[str]) -> None:
    assert director("f", "-", "--model", "work.py:model", "--dry-run") == 0
    assert "items of a stream, which is not read" in capfd.readouterr().out


# ---- progress


def test_progress_for_programs(run: Run) -> None:
    Path("in.txt").write_text("a\nb\n")
    Path("slow.py").write_text("import time\ndef f(device, item): time.sleep(1.3); raise ValueError('\\x1b[2J')\n")
    ended = run("run", "slow.py:f", "in.txt", "--lines", "--devices", "cpu:2", "--progress", "json")
    documents = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    progress = next(document["progress"] for document in documents if "progress" in document)
    assert (progress["total"], progress["done"], progress["seconds_left"]) == (2, 0, None)
    assert any("failed: " in document.get("message", "") for document in documents)
    assert "\x1b" not in ended.err


def test_the_report_is_whole_or_absent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("page.html").write_text("the report of an earlier run")
    command = [sys.executable, "-m", "director", "run", "work.py:f", "-", "--devices", "cpu", "--report", "page.html"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"in/a.png\n")
    child.stdin.flush()
    child.stdout.readline()
    child.kill()
    child.communicate()
    assert Path("page.html").read_text() == "the report of an earlier run"
    assert not list(Path().glob(".page*"))
    assert threading.active_count() < 50
