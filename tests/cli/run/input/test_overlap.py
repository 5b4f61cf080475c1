"""A run never writes over what it reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from director.cli._run.input.overlap import Outputs
from director.cli._run.input.sources import open_source
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Ended

    Run = Callable[..., Ended]

PRECIOUS = "one\ntwo\n"

pytestmark = pytest.mark.usefixtures("work")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.txt").write_text(PRECIOUS)
    (tmp_path / "symlink").symlink_to("data/in.txt")
    os.link("data/in.txt", "hardlink")
    return tmp_path


def director(command: str) -> tuple[int, str]:
    """Run `director run work.py:echo` as a shell does; its status and what it said."""
    line = f"{sys.executable} -m director run work.py:echo {command} --devices cpu:1"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        "data/in.txt --lines -o data/in.txt",
        "data/in.txt --lines -o ./data/../data/in.txt",
        "data/in.txt --lines -o symlink",
        "symlink --lines -o data/in.txt",
        "data/in.txt --lines -o hardlink",
        "data/in.txt --jsonl -o hardlink",
        "data/in.txt -o data/in.txt",
        "'data/*' -o data/in.txt",
        "'**/*.txt' -o hardlink",
        "- --lines -o data/in.txt < data/in.txt",
        "- -o hardlink < data/in.txt",
        "- --lines -o /dev/stdin < data/in.txt",
        "- --lines -o /proc/self/fd/0 < data/in.txt",
        "data/in.txt --lines -o /dev/fd/7 7<> data/in.txt",
        "data/in.txt --lines >> data/in.txt",
        "data/in.txt --lines 2>> data/in.txt",
        "data/in.txt --lines -o other 2>> data/in.txt",
        "'data/*' >> data/in.txt",
        "data/in.txt --lines --report report.html",
    ],
)
def test_an_input_is_no_output(command: str, here: Path) -> None:
    os.link("data/in.txt", "report.html")
    status, said = director(command)
    assert status == 2
    assert (here / "data" / "in.txt").read_text().startswith(PRECIOUS)
    if "2>>" not in command:  # where the complaint is what was added
        assert "is an input and also the output" in said
        assert "name another file" in said
        assert (here / "data" / "in.txt").read_text() == PRECIOUS
    assert not (here / "other").exists()


@pytest.mark.parametrize("output", ["work.py", "helper.py"])
def test_the_program_is_no_output(output: str, here: Path) -> None:
    (here / "helper.py").write_text("")
    work = here / "work.py"
    work.write_text(work.read_text() + "import helper\n")
    before = (here / output).read_text()
    status, said = director(f"data/in.txt -o {output}")
    assert (status, (here / output).read_text()) == (2, before)
    assert "is part of the program" in said


@pytest.mark.parametrize("command", ["-o new.json --report new.json", "-o new.json --report ./new.json", "-o n > n"])
def test_two_outputs_are_two_files(command: str, here: Path) -> None:
    status, said = director(f"data/in.txt {command}")
    assert status == 2
    assert "are the same file" in said
    assert not (here / "new.json").exists()


def test_a_listed_output_fails_and_its_changes_do_not_count(here: Path) -> None:
    """Else its record is held back, as the output has grown meanwhile, and the item is run after all."""
    (here / "out.jsonl").touch()
    (here / "list").write_text("data/in.txt\n./out.jsonl\n")
    first, second = open_source([], "files", Outputs({"-o": "out.jsonl"}), lists=["list"])
    assert (first.path, first.error) == ("data/in.txt", None)
    assert (second.path, type(second.error)) == (None, ValueError)


def test_an_item_that_the_standard_input_lists_is_no_output(run: Run, here: Path) -> None:
    ended = run("run", "work:echo", "-", "-o", "out.jsonl", "--devices", "cpu", stdin=b"data/in.txt\n./out.jsonl\n")
    assert ended.status == 1
    assert "this run writes it (-o out.jsonl)" in (here / "out.jsonl").read_text()
    assert '"result": "data/in.txt"' in (here / "out.jsonl").read_text()


@pytest.mark.parametrize(
    "command",
    [
        "data/in.txt --lines -o /dev/null > /dev/null",
        "- --lines < /dev/null > /dev/null 2>&1",
        "data/in.txt > out 2>&1",
        "data/in.txt -o out --report out.html > log 2>&1",
        "- -o out < data/in.txt",
        "'data/*' -o data/out.jsonl",
    ],
)
def test_what_is_no_clash(command: str) -> None:
    assert director(command)[0] == 0


def test_the_results_of_an_earlier_run_are_left_out_of_a_pattern(here: Path) -> None:
    (here / "data" / "more.txt").write_text("")
    command = "'data/*' -o data/out.jsonl --report data/run.html --failures data/failed.jsonl --ordered"
    for again in ("", " --fresh", " --resume"):
        status, said = director(command + again)
        assert status == 0
        assert ("left out of the input, because this run writes it: data/" in said) == bool(again)
        results = [json.loads(line) for line in (here / "data" / "out.jsonl").read_text().splitlines()]
        assert [result["input"] for result in results] == ["data/in.txt", "data/more.txt"]
    assert director(command)[0] == 4


def test_what_the_shell_has_made_for_the_results_is_left_out_of_a_pattern(here: Path) -> None:
    assert director("'data/*' > data/out")[0] == 0
    assert [json.loads(line)["input"] for line in (here / "data" / "out").read_text().splitlines()] == ["data/in.txt"]


def test_a_folder_of_results_is_left_out_of_a_pattern(here: Path) -> None:
    command = "'**/*.txt' --out-dir data/results --template {relpath} -o out.jsonl"
    for again in ("", " --fresh"):
        assert director(command + again)[0] == 0
        assert len((here / "out.jsonl").read_text().splitlines()) == 1


def test_nothing_is_opened_by_the_check(here: Path) -> None:
    with pytest.raises(UsageError, match=r"data/in\.txt is an input"):
        Outputs({"-o": "symlink", "--report": "new.html"}).check(["data/in.txt"])
    assert not (here / "new.html").exists()
