"""A run never writes over what it reads."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from director.cli._run.outputs import Outputs
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Ended

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


def test_a_result_of_an_earlier_run_within_the_pattern_is_an_input(here: Path) -> None:
    assert director("'data/*' -o data/out.jsonl")[0] == 0
    results = (here / "data" / "out.jsonl").read_text()
    assert director("'data/*' -o data/out.jsonl")[0] == 2
    assert (here / "data" / "out.jsonl").read_text() == results


def test_nothing_is_opened_by_the_check(here: Path) -> None:
    with pytest.raises(UsageError, match=r"data/in\.txt is an input"):
        Outputs("symlink", "new.html").check(["data/in.txt"])
    assert not (here / "new.html").exists()
