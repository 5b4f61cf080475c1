"""The command line itself: help, version, exit status, and how little it imports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import director
from director import cli
from director.cli import main
from director.errors import NoDevices

if TYPE_CHECKING:
    import argparse


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"director {director.__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {command} " in shown for command in cli.COMMANDS)
    assert "exit status: 0 done, 1 some items failed" in shown


def test_no_command_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: director")


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["--nonsense"], ["run", "a:b", "c", "--halt", "later"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (cli.UsageError("wrong"), 2),
        (NoDevices("none"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_a_command_raises(raised: BaseException, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: argparse.Namespace) -> int:
        raise raised

    monkeypatch.setattr("director.cli.run.run", broken)
    assert main(["run", "work:echo", "x"]) == status


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN, "a loop"])
def test_sigterm_ends_a_command_as_ctrl_c_does(ctrl_c: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Ctrl-C is switched off, as for a command that a script starts in the background."""
    cleaned = []

    async def wait() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    def held(options: argparse.Namespace) -> int:
        try:
            asyncio.run(wait()) if ctrl_c == "a loop" else signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)
        return 0

    monkeypatch.setattr("director.cli.run.run", held)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    if ctrl_c != "a loop":
        signal.signal(signal.SIGINT, ctrl_c)
    try:
        assert main(["run", "work:echo", "x"]) == 143
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert cleaned == [True] * (1 + (ctrl_c == "a loop"))
    assert signal.getsignal(signal.SIGTERM) == before[1]


def test_a_command_on_another_thread_leaves_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.cli.run.run", lambda options: 0)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["run", "work:echo", "x"]).result() == 0


@pytest.mark.parametrize("line", ["-m director --version", "-m director bench --list", "-um director bench --list"])
def test_a_full_disk_is_an_error_in_one_line(line: str) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, *line.split()]
    with Path("/dev/full").open("w") as full:
        shown = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert shown.returncode == 1
    assert shown.stderr.endswith("can't be written: No space left on device\n")
    assert shown.stderr.count("\n") == 1


def test_a_usage_error_names_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(options: argparse.Namespace) -> int:
        raise cli.UsageError("the cause", "a traceback\n")

    monkeypatch.setattr("director.cli.run.run", broken)
    main(["run", "work:echo", "x"])
    assert capsys.readouterr().err == "a traceback\ndirector run: the cause\n"


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", ["['--help']", "['run', '--help']", "['demo', '--help']"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    loaded = fresh(f"import sys; from director.cli import main; main({arguments}); print(); print(*sys.modules)")
    assert not {"pynvml", "rich", "numpy", "sklearn", "torch"} & set(loaded.splitlines()[-1].split())


def test_only_the_named_command_is_imported() -> None:
    loaded = fresh("import sys; from director.cli import main; main(['run', '--help']); print(); print(*sys.modules)")
    commands = {f"director.cli.{command}" for command in cli.COMMANDS}
    assert commands & set(loaded.splitlines()[-1].split()) == {"director.cli.run"}


def test_as_a_module_it_is_called_director() -> None:
    shown = subprocess.run([sys.executable, "-m", "director"], capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert shown.stderr.startswith("usage: director ")


def test_a_broken_pipe_ends_a_command_quietly() -> None:
    """Of any command, and of the help: by the shell's number for it."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "director", "--help"]
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    shown = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    os.close(writer)
    assert (shown.returncode, shown.stderr) == (141, "")


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_without_a_standard_stream_a_command_does_its_work(closed: str, tmp_path: Path) -> None:
    """Their descriptors are not those of the results, into which what a function prints would go."""
    (tmp_path / "items").write_text("a\nb\n")
    (tmp_path / "fn.py").write_text(
        "import os\n"
        "def show(device, item):\n"
        "    for number in (0, 1, 2):\n"
        "        try:\n"
        "            os.write(number, b'printed')\n"
        "        except OSError:\n"
        "            pass\n"
        "    print('printed')\n"
        "    return item\n"
    )
    command = f"{sys.executable} -W error -m director run fn.py:show items --lines --devices cpu:1 -o results {closed}"

    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    results = (tmp_path / "results").read_text()
    assert [json.loads(line)["result"] for line in results.splitlines()] == ["a", "b"]


def test_results_for_a_closed_standard_output_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("1\n")
    command = f"{sys.executable} -m director run builtins:divmod items --lines --devices cpu:1 >&-"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the results can't be written" in done.stderr
    assert "Traceback" not in done.stderr
