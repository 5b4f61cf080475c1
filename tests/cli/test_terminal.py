"""What a terminal would obey never reaches it, from any field, and nothing is written past the one place for it."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

import director.cli
from director import Director, _format
from director.cli import main
from director.cli._console import escape_logs_and_errors, on_terminal, print_error, shown_document, shown_json
from director.dashboard import Dashboard

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.programs

CONTROLS = "\x1b]0;PWN\x07\x1b[31mRED\x9b2J\u202eX\u200b\u2028\r\x08\x7f"
EVIL = f"a{CONTROLS}z"
EVIL_NAME = os.fsdecode(EVIL.encode() + b"\xff")  # of a file, and no UTF-8
OWN = re.compile(rb"\x1b\[\??[0-9;]*[A-Za-z]|\r")  # how rich moves the cursor and colours
COMMANDS = Path(director.cli.__file__).parent


def check(raw: bytes, *, styled: bool = False) -> str:
    """What was written, without rich's own styling; nothing of what was planted is in it as a command."""
    for planted in (b"\x1b]", b"\x1b[31mRED", "\x9b".encode(), b"\x07", b"\x08", b"\x7f", "\u202e".encode()):
        assert planted not in raw, raw[max(0, raw.index(planted) - 80) :][:160]
    text = (OWN.sub(b"", raw) if styled else raw.replace(b"\r\n", b"\n")).decode()
    assert [line for line in text.split("\n") if _format.plain(line) != line] == []
    return text


def through_terminal(*arguments: str, **environment: str) -> tuple[int, bytes]:
    """Run `director` on a terminal of its own; its status, and the bytes that reach the terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "director", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "300", "LINES": "40", **environment},
    ) as child:
        os.close(slave)
        seen = b""
        while True:
            try:
                seen += os.read(master, 1 << 16)
            except OSError:  # the other side is closed
                break
        os.close(master)
    return child.returncode, seen


# ---- director run

PROGRAM = f"""
import logging, threading, warnings
from director import Model
evil = {EVIL!r}
class Odd(Exception): pass
Odd.__qualname__ = evil
def f(device, item):
    logging.getLogger("director.jobs").warning("log %s", item)
    warnings.warn(evil)
    thread = threading.Thread(target=fail, args=(None, None), name=evil)
    thread.start()
    thread.join()
    return {{"item": item, evil: evil}}
def fail(device, item): raise Odd(evil)
def lost(device): raise Odd(evil)
def two(device): pass
model = Model(lost, name=evil)
globals()["f" + evil] = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text(f"raise ValueError({EVIL!r})")
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{EVIL_NAME}{number}").touch()
    return tmp_path


ON = ("--devices", "simulated:1")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("work.py:f", "in/*", *ON), 0),
        (("work.py:f", "in/*", "-q", *ON), 0),
        (("work.py:f", "in/*", "--json", "-o", f"out{EVIL_NAME}", *ON), 0),
        (("work.py:fail", "in/*", "--traceback", "-o", f"out{EVIL_NAME}", *ON), 1),
        (("work.py:fail", "in/*", "--halt", "soon", "-o", f"out{EVIL_NAME}", *ON), 3),
        (("work.py:fail", "in/*", "--progress", "json", *ON), 1),
        (("work.py:f", "in/*", "--out-dir", f"out{EVIL_NAME}", *ON), 0),
        (("work.py:f", "in/*", "--dry-run", "--out-dir", f"out{EVIL_NAME}", *ON), 0),
        (
            (
                "work.py:f",
                "in/*",
                "--shard",
                "1/1",
                "--failures",
                f"in/failed{EVIL_NAME}",
                "-o",
                f"in/o{EVIL_NAME}",
                *ON,
            ),
            0,
        ),
        (("work.py:f", "in/*", "--model", "work.py:model", *ON), 1),
        (("broken.py:f", "in/*", *ON), 2),
    ],
)
@pytest.mark.usefixtures("folder")
def test_run(arguments: tuple[str, ...], status: int) -> None:
    ended, raw = through_terminal("run", *arguments)
    assert "PWN" in check(raw, styled=True)
    assert ended == status


@pytest.mark.usefixtures("folder")
def test_refusals_of_run() -> None:
    output = f"out{EVIL_NAME}"
    assert main(["run", "work.py:f", "in/*", "-o", output, "-q", *ON]) in (0, 1)
    for words in ((), ("--resume", "--model", "work.py:two"), ("--resume", "--jsonl")):
        ended, raw = through_terminal("run", "work.py:f", "in/*", "-o", output, *words, *ON)
        assert ended in (2, 4)
        check(raw, styled=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("work.py:f", f"in/none{EVIL}"),
        ("work.py:f", "in/*", "-o", f"no{EVIL}/out", *ON),
        ("work.py:f", "in/*", "-o", f"in/{EVIL_NAME}0", *ON),
        ("work.py:f", "in/*", "--report", f"no{EVIL}", *ON),
        ("work.py:f", "in/*", "--report", f"no{EVIL}/report.html", *ON),
        ("work.py:f", "in/*", f"--nonsense{EVIL}"),
        ("work.py:f", "in/*", "--halt", EVIL),
        ("work.py:f", "in/*", "--devices", EVIL),
        ("work.py:f", "in/*", "--slots", f"{EVIL}=2", *ON),
        (f"work.py:f{EVIL}", "in/*", *ON),
        (f"work.py:g{EVIL}", "in/*", *ON),
        (f"work{EVIL}.py:f", "in/*", *ON),
        (f"work{EVIL}:f", "in/*", *ON),
        (EVIL, "in/*", *ON),
    ],
)
@pytest.mark.usefixtures("folder")
def test_run_that_can_not_begin(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments]) == 2
    told = capfd.readouterr()
    assert "PWN" in check((told.out + told.err).encode("utf-8", "surrogateescape"))


def test_run_in_a_pipe(folder: Path) -> None:
    """What goes to a file or a pipe is JSON as it was, and everything said about it is plain, without any styling."""
    command = [sys.executable, "-m", "director", "run", "work.py:fail", "in/*", "--devices", "cpu:1", "--ordered"]
    ended = subprocess.run(command, capture_output=True, cwd=folder)
    text = check(ended.stderr)
    assert "failed: " in text
    assert b"\x1b" not in ended.stdout + ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [each["error"]["message"] for each in told] == [EVIL] * 3


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.usefixtures("folder")
def test_without_escape_sequences(variable: dict[str, str]) -> None:
    _, raw = through_terminal("run", "work.py:f", "in/*", "--devices", "cpu:1", **variable)
    assert "done: 3 items" in check(raw)
    assert b"\x1b" not in raw


# ---- what looks at the machine


@pytest.mark.parametrize(
    "arguments",
    [
        ("devices",),
        ("doctor",),
        ("devices", "--json"),
        ("doctor", "--json"),
        ("demo", "--load", EVIL),
        ("demo", "--simulated", EVIL),
        ("bench", "--only", EVIL),
        ("top", f"/tmp/{EVIL}"),
        (EVIL,),
    ],
)
def test_variables_and_arguments(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_DRIVER_CAPABILITIES"):
        monkeypatch.setenv(name, EVIL_NAME)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{EVIL}/stubs")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / EVIL_NAME))
    main(arguments)
    told = capfd.readouterr()
    assert "PWN" in check((told.out + told.err).encode("utf-8", "surrogateescape"))


# ---- director top


def planted(device: object) -> None:
    raise ValueError(EVIL)


@pytest.mark.parametrize("how", [("--once",), ("--once", "--json"), ()])
async def test_top(how: tuple[str, ...], tmp_path: Path) -> None:
    """Of an app that has it in every name."""
    director, began, freed = Director("simulated:1", name=EVIL), threading.Event(), threading.Event()

    def wait(device: object) -> None:
        from director import report

        report(EVIL)
        began.set()
        freed.wait(30)

    async with Dashboard(director).serve(tmp_path / f"{EVIL}.sock") as path, director:
        await asyncio.gather(director.submit(planted, name=EVIL), return_exceptions=True)
        jobs = [director.submit(wait, name=EVIL) for _ in range(2)]
        await asyncio.to_thread(began.wait)
        keys = "" if how else "\t\t\rq"
        raw = await asyncio.to_thread(look, [str(path), *how], keys)
        freed.set()
        await asyncio.gather(*jobs)
    assert "PWN" in check(raw, styled=not how)


def look(arguments: list[str], keys: str) -> bytes:
    """`director top` on a terminal, where each key is pressed once something was drawn."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "director", "top", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "300", "LINES": "40"},
    ):
        os.close(slave)
        seen = b""
        while True:
            try:
                seen += os.read(master, 1 << 16)
            except OSError:
                break
            if keys and b"PWN" in seen:
                os.write(master, keys[:1].encode())
                keys = keys[1:]
        os.close(master)
    return seen


# ---- the one place


def test_nothing_is_written_past_it() -> None:
    """Neither `print` nor the standard streams nor rich's own consoles are used elsewhere in the commands."""
    wrong = []
    for path in COMMANDS.rglob("*.py"):
        if path.name in ("_console.py", "_rich.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            is_writer = called in ("print", "input", "Console", "Live") or called.startswith("traceback.print")
            if is_writer or re.fullmatch(r"sys\.std(out|err)\.write(lines)?", called):
                wrong.append(f"{path.name}:{getattr(node, 'lineno', 0)} {called}")
    assert wrong == []


@settings(max_examples=examples(50))
@given(st.text())
def test_plain_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = _format.plain(text)
    assert _format.plain(shown) == shown
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]", shown)
    assert shown == text or not text.isprintable()


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_on_a_terminal_is_the_same_value(value: object) -> None:
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    shown = shown_json(line)
    assert json.loads(shown) == json.loads(line)
    assert _format.plain(shown.decode().removesuffix("\n")) == shown.decode().removesuffix("\n")


def test_json_that_was_written_with_tabs_and_returns() -> None:
    assert shown_json(b'{"a":\t"\xc2\x9b"}\r\n{"b": 1}\n') == b'{"a": "\\u009b"} \n{"b": 1}\n'


def test_a_document_of_another_process() -> None:
    found = shown_document({EVIL: [EVIL, 1, None, {"traceback": "a\n\x1b"}], "name": "a\nb"})
    assert found == {
        _format.plain(EVIL): [_format.plain(EVIL), 1, None, {"traceback": "a\n\\x1b"}],
        "name": "a\\nb",
    }


@pytest.fixture
def guarded() -> Iterator[None]:
    with escape_logs_and_errors():
        yield


@pytest.mark.usefixtures("guarded")
def test_what_others_write(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings; loggers and threads are in `test_run`."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(UserWarning(EVIL), UserWarning, f"{EVIL}.py", 3)
    print_error([EVIL, "next"])
    told = capsys.readouterr().err
    assert told.count("PWN") >= 3
    assert all(_format.plain(line) == line for line in told.split("\n"))


def test_an_error_of_a_command_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise LookupError(EVIL)

    monkeypatch.setattr("director.cli._doctor.checkup.examine", fail)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().err
    assert "LookupError: a\\x1b]0;PWN" in told
    assert all(_format.plain(line) == line for line in told.split("\n"))


def test_a_stream_that_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    assert not on_terminal(stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert on_terminal(stream)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not on_terminal(stream)
