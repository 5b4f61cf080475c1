"""A run that was ended, and the one that goes on with it."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Child, Gates

    Start = Callable[..., Child]

WORK = """
import os

calls = []


def f(device, item):
    calls.append(item)
    if os.path.exists(f"fail-{os.path.basename(item)}"):
        raise ValueError(f"{item} fails")
    return item.upper()


def g(device, item):
    return item


def rotate(device, path):
    with open(path, "a") as file:
        file.write("turned")
    return path


def slow(device, item):
    import time
    time.sleep(0.002)
    if int(item) % 100 == 7:
        raise ValueError("poison")
    return int(item)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    return tmp_path


def director(*words: str, function: str = "work.py:f") -> int:
    """Run it here."""
    return main(["run", function, *words, "--devices", "cpu:2"])


def records(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def inputs(path: str = "out.jsonl") -> list[Any]:
    return sorted(record["input"] for record in records(path))


def entries() -> list[dict[str, Any]]:
    """The lines of items in the journal."""
    lines = map(json.loads, Path("out.jsonl.journal").read_text().splitlines())
    return [line for line in lines if "key" in line]


def calls() -> list[str]:
    """The items that were called since this was called last."""
    module = next(
        each for each in sys.modules.values() if getattr(each, "__file__", "") == str(Path("work.py").absolute())
    )
    taken, module.calls[:] = sorted(module.calls), []
    return taken


LINES = ("in.txt", "--lines", "-o", "out.jsonl")


@pytest.fixture
def lines(here: Path) -> Path:
    path = here / "in.txt"
    path.write_text("a\nb\nc\n")
    return path


# ---- refusals


def test_results_are_never_replaced_unasked(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert director(*LINES) == 0
    before = Path("out.jsonl").read_bytes(), Path("out.jsonl.journal").read_bytes()
    assert director(*LINES) == 4
    assert "out.jsonl holds an earlier run: --resume goes on with it, --fresh starts over" in capsys.readouterr().err
    assert (Path("out.jsonl").read_bytes(), Path("out.jsonl.journal").read_bytes()) == before
    assert director(*LINES, "--fresh") == 0
    assert inputs() == ["a", "b", "c"]


def test_a_file_without_a_journal_is_not_gone_on_with(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl").write_text("precious\n")
    for words in ((), ("--resume",), ("--resume=force",), ("--retry-failed",)):
        assert director(*LINES, *words) == 4
        assert "out.jsonl exists and has no journal" in capsys.readouterr().err
    assert Path("out.jsonl").read_text() == "precious\n"
    assert not Path("out.jsonl.journal").exists()


def test_with_nothing_there_resume_starts_afresh(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert director(*LINES, "--retry-failed") == 4
    assert "there is no earlier run of out.jsonl" in capsys.readouterr().err
    assert director(*LINES, "--resume") == 0
    assert inputs() == ["a", "b", "c"]


def test_an_output_that_is_gone_is_not_silently_made_again(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert director(*LINES) == 0
    Path("out.jsonl").rename("moved.jsonl")
    assert director(*LINES, "--resume") == 4
    assert "out.jsonl is gone, and its journal lists 3 results" in capsys.readouterr().err
    Path("moved.jsonl").rename("out.jsonl")
    assert director(*LINES, "--resume") == 0


@pytest.mark.parametrize(
    ("words", "function", "told"),
    [
        (("in.txt", "--lines"), "work.py:g", "function was 'work:f' and is 'work:g'"),
        (("in.txt", "--lines", "--model", "work.py:g"), "work.py:f", "model was None and is 'work:g'"),
        (("in.txt", "--jsonl"), "work.py:f", "input was 'lines' and is 'jsonl'"),
    ],
)
def test_another_configuration_is_refused_with_what_differs(
    words: tuple[str, ...], function: str, told: str, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert director(*LINES) == 0
    assert director(*words, "-o", "out.jsonl", "--resume", function=function) == 4
    assert told in capsys.readouterr().err


def test_what_does_not_change_results_may_differ(lines: Path) -> None:
    assert director(*LINES) == 0
    words = ("--slots", "2", "--window", "9", "--ordered", "--timeout", "60", "--executor", "thread", "--retries", "1")
    assert main(["run", "./work.py:f", *LINES, "--devices", "simulated:1", "--resume", *words]) == 0


def test_changed_code_is_a_difference_on_request(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert director(*LINES, "--fingerprint", "code") == 0
    assert director(*LINES, "--fingerprint", "code", "--resume") == 0
    with Path("work.py").open("a") as file:
        file.write("# changed\n")
    assert director(*LINES, "--fingerprint", "code", "--resume") == 4
    assert "code was " in capsys.readouterr().err
    assert director(*LINES, "--fingerprint", "code", "--resume=force") == 0


@pytest.mark.parametrize("words", [("--resume",), ("--retry-failed",), ("--failures", "f.jsonl"), ("--merge",)])
def test_the_standard_output_has_no_journal(
    words: tuple[str, ...], lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in ((), ("-o", "-")):
        assert director("in.txt", "--lines", *output, *words) == 2
        assert f"{words[0]} needs --output FILE" in capsys.readouterr().err
    if words[0] != "--merge":
        assert director("in.txt", "--lines", "-o", "/dev/null", *words) == 2


# ---- going on


def test_items_that_are_done_are_left_out(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert director(*LINES) == 0
    before = Path("out.jsonl").read_bytes()
    lines.write_text("new 1\na\nc\nnew 2\n")  # added, and one removed
    calls()
    assert director(*LINES, "--resume", "--json") == 0
    assert calls() == ["new 1", "new 2"]
    assert Path("out.jsonl").read_bytes().startswith(before)
    assert inputs() == ["a", "b", "c", "new 1", "new 2"]
    summary = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (summary["succeeded"], summary["left_out"], summary["not_run"]) == (2, {"ok": 2}, 0)


def test_each_line_of_a_text_is_done_as_often_as_it_stands_there(lines: Path) -> None:
    lines.write_text("a\na\nb\n")
    assert director(*LINES) == 0
    lines.write_text("a\nb\na\na\n")
    calls()
    assert director(*LINES, "--resume") == 0
    assert calls() == ["a"]
    assert inputs() == ["a", "a", "a", "b"]


def test_failures_are_tried_again_on_request_alone(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fail-b").touch()
    assert director(*LINES) == 1
    survivors = [line for line in Path("out.jsonl").read_text().splitlines() if "error" not in line]
    Path("fail-b").unlink()
    lines.write_text("a\nb\nc\nd\n")
    calls()
    assert director(*LINES, "--resume") == 0
    assert "1 item left out: failed before; --retry-failed tries them again" in capsys.readouterr().err
    assert calls() == ["d"]
    lines.write_text("a\nb\nc\nd\ne\n")
    assert director(*LINES, "--retry-failed") == 0
    assert calls() == ["b"]
    assert director(*LINES, "--resume", "--retry-failed") == 0
    assert calls() == ["e"]
    assert Path("out.jsonl").read_text().splitlines()[:2] == survivors
    assert inputs() == ["a", "b", "c", "d", "e"]
    assert all("result" in record for record in records())


def test_what_fails_again_is_there_once(lines: Path) -> None:
    Path("fail-b").touch()
    for words in ((), ("--retry-failed",), ("--resume", "--retry-failed")):
        assert director(*LINES, "--failures", "failed.jsonl", *words) == 1
        assert inputs() == ["a", "b", "c"]
        assert inputs("failed.jsonl") == ["b"]
    Path("fail-b").unlink()
    assert director(*LINES, "--failures", "failed.jsonl", "--retry-failed") == 0
    assert Path("failed.jsonl").read_bytes() == b""


# ---- files


@pytest.fixture
def files(here: Path) -> Path:
    folder = here / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        (folder / name).write_text(name)
    return folder


FILES = ("in/**/*.txt", "-o", "out.jsonl")


def test_files_added_removed_and_edited_in_between(files: Path) -> None:
    assert director(*FILES) == 0
    (files / "a.txt").write_text("another text")
    (files / "b.txt").unlink()
    (files / "d.txt").touch()
    calls()
    assert director(*FILES, "--resume") == 0
    assert calls() == ["in/a.txt", "in/d.txt"]
    assert inputs() == ["in/a.txt", "in/b.txt", "in/d.txt", "in/deep/c.txt"]


def test_a_tree_that_was_moved_is_the_same_tree(files: Path) -> None:
    assert director(*FILES) == 0
    files.rename("elsewhere")
    calls()
    assert director(f"{Path.cwd()}/elsewhere/**/*.txt", "-o", "out.jsonl", "--resume") == 0
    assert calls() == []


def test_another_tree_with_the_same_names_replaces_nothing(files: Path) -> None:
    """January's results are not taken for February's."""
    assert director("in/*.txt", "-o", "out.jsonl") == 0
    shutil.copytree("in", "feb")
    calls()
    assert director("feb/*.txt", "-o", "out.jsonl", "--resume") == 0
    assert calls() == ["feb/a.txt", "feb/b.txt"]
    assert inputs() == ["feb/a.txt", "feb/b.txt", "in/a.txt", "in/b.txt"]
    assert director(f"{Path.cwd()}/in/*.txt", "feb/*.txt", "-o", "out.jsonl", "--resume") == 0
    assert calls() == []


def test_a_second_tree_is_told_from_the_first(files: Path) -> None:
    assert director("in/*.txt", "-o", "out.jsonl") == 0
    shutil.copytree("in", "other")
    calls()
    for words in (("in/*.txt", "other/*.txt"), ("other/*.txt", "in/*.txt")):
        assert director(*words, "-o", "out.jsonl", "--resume") == 0
    assert calls() == ["other/a.txt", "other/b.txt"]
    assert director("in/a.txt", "in/b.txt", "other/a.txt", "-o", "out.jsonl", "--resume") == 0  # as a shell expands it
    assert calls() == []


def test_a_function_that_edits_its_files(files: Path) -> None:
    assert director("in/*.txt", "-o", "out.jsonl", "--in-place", function="work.py:rotate") == 0
    assert director("in/*.txt", "-o", "out.jsonl", "--in-place", "--resume", function="work.py:rotate") == 0
    assert (files / "a.txt").read_text() == "a.txtturned"


@pytest.mark.parametrize("ordered", [(), ("--ordered",)])
def test_a_file_that_changes_while_it_is_processed_is_done_again_once(
    ordered: tuple[str, ...], files: Path, start: Start, gates: Gates
) -> None:
    Path("gated.py").write_text(
        "import os\n"
        "def f(device, path):\n"
        "    content = open(path).read()\n"
        f"    with open({str(gates._folder)!r} + '/begun', 'w') as begun: begun.write('x\\n')\n"
        f"    with open({gates.make('go')!r}) as gate: gate.read()\n"
        "    return content\n"
    )
    child = start("run", "gated.py:f", "in/a.txt", "-o", "out.jsonl", "--devices", "cpu", *ordered)
    for content in ("changed", None):
        gates.wait_for(1)
        if content is not None:
            (files / "a.txt").write_text(content)
        gates.open("go")
    assert child.end().status == 0
    assert [record["result"] for record in records()] == ["changed"]
    assert [(entry["status"], entry["attempt"]) for entry in entries()] == [("changed", 1), ("ok", 1)]
    assert director("in/a.txt", "-o", "out.jsonl", "--resume", function="gated.py:f") == 0


def test_a_file_that_always_changes_is_done_twice_and_again_by_the_next_run(files: Path) -> None:
    assert director("in/*.txt", "-o", "out.jsonl", function="work.py:rotate") == 0
    assert [entry["status"] for entry in entries()].count("changed") == 2
    assert len(records()) == 2
    before = (files / "a.txt").read_text()
    assert before.count("turned") == 2
    assert director("in/*.txt", "-o", "out.jsonl", "--resume", "--in-place", function="work.py:rotate") == 0
    assert (files / "a.txt").read_text() == f"{before}turned"
    assert director("in/*.txt", "-o", "out.jsonl", "--resume", "--in-place", function="work.py:rotate") == 0
    assert (files / "a.txt").read_text() == f"{before}turned"
    assert len(records()) == 2


def test_odd_names(here: Path) -> None:
    names = [
        b"new\nline",
        b'"quote"',
        b"bad\xff\xfe",
        "ünï📷".encode(),
        b"-dash",
        b"#1",
        b"~tilde",
        b"tab\t",
        b"\x1b[2J",
    ]
    (here / "in").mkdir()
    for name in names:
        (here / "in" / os.fsdecode(name)).touch()
    assert director("in/*", "-o", "out.jsonl") == 0
    assert sorted(os.fsencode(each) for each in inputs()) == sorted(b"in/" + name for name in names)
    calls()
    assert director("in/*", "-o", "out.jsonl", "--resume") == 0
    assert calls() == []
    for line in Path("out.jsonl.journal").read_bytes().splitlines():
        assert json.loads(line)
        assert b"\x1b" not in line


# ---- ids


@pytest.mark.parametrize(
    ("name", "kind", "first", "second"),
    [
        (
            "in.jsonl",
            "--jsonl",
            '{"id": 7, "v": "a"}\n{"id": "x", "v": "b"}\n',
            '{"v": "A", "id": 7}\n{"id": 8, "v": "c"}\n',
        ),
        ("in.csv", "--csv", "id,v\n7,a\nx,b\n", 'v,id\n"A\nand more",7\nc,8\n'),
    ],
)
def test_an_id_is_what_an_item_is_known_by(name: str, kind: str, first: str, second: str) -> None:
    words = (name, kind, "--id-field", "id", "-o", "out.jsonl")
    Path(name).write_text(first)
    assert director(*words, function="work.py:g") == 0
    Path(name).write_text(second)
    assert director(*words, "--resume", function="work.py:g") == 0
    assert [(str(record["input"]["id"]), record["result"]["v"]) for record in records()] == [
        ("7", "a"),
        ("x", "b"),
        ("8", "c"),
    ]


def test_two_items_of_one_id(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_text('{"id": 1}\n{"id": 2}\n\n{"id": 1}\n')
    assert director("in.jsonl", "--jsonl", "--id-field", "id", "-o", "out.jsonl", function="work.py:g") == 2
    assert "in.jsonl, line 4 has the id '1', and so has line 1" in capsys.readouterr().err
    assert not Path("out.jsonl").exists()


def test_an_item_without_an_id_fails_alone() -> None:
    Path("in.jsonl").write_text('{"id": 1}\n{"other": 2}\n[3]\n')
    assert director("in.jsonl", "--jsonl", "--id-field", "id", "-o", "out.jsonl", function="work.py:g") == 1
    assert sorted(record.get("error", {}).get("message", "") for record in records()) == [
        "",
        "in.jsonl, line 2 has no 'id', which --id-field names",
        "in.jsonl, line 3 has no 'id', which --id-field names",
    ]


# ---- shards


def test_shards_are_disjoint_and_their_union_is_the_whole(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines.write_text("".join(f"{number}\n" for number in range(200)) + "7\n7\n")
    for number in (1, 2, 3):
        assert director(*LINES, "--shard", f"{number}/3") == 0
    parts = [inputs(f"out.jsonl.{number}-of-3") for number in (1, 2, 3)]
    assert all(len(part) > 30 for part in parts)
    assert sorted(itertools.chain(*parts)) == sorted(lines.read_text().split())
    assert main(["run", "--merge", "-o", "out.jsonl"]) == 0
    assert "out.jsonl: 3 shards, 202 items succeeded, 0 failed" in capsys.readouterr().err
    assert inputs() == sorted(lines.read_text().split())
    lines.write_text(lines.read_text() + "one more\n")
    calls()
    assert director(*LINES, "--resume") == 0
    assert calls() == ["one more"]


def test_what_an_item_is_decides_its_shard_not_where_it_stands(lines: Path) -> None:
    lines.write_text("".join(f"{number}\n" for number in range(50)))
    assert director(*LINES, "--shard", "1/2") == 0
    before = inputs("out.jsonl.1-of-2")
    lines.write_text("new\n" + lines.read_text())
    assert director("in.txt", "--lines", "-o", "again.jsonl", "--shard", "1/2") == 0
    assert set(before) <= set(inputs("again.jsonl.1-of-2"))


def test_shards_that_do_not_fit(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--merge", "-o", "out.jsonl"]) == 2
    assert "there is no shard of out.jsonl" in capsys.readouterr().err
    assert director(*LINES, "--shard", "1/2") == 0
    assert main(["run", "--merge", "-o", "out.jsonl"]) == 2
    assert "shard 2 of 2 is missing: out.jsonl.2-of-2" in capsys.readouterr().err
    assert director(*LINES, "--shard", "2/2", function="work.py:g") == 0
    assert main(["run", "--merge", "-o", "out.jsonl"]) == 4
    assert "out.jsonl.2-of-2 is of another run than out.jsonl.1-of-2: function is" in capsys.readouterr().err
    assert director(*LINES, "--shard", "2/2", "--fresh") == 0
    Path("out.jsonl").write_text("precious")
    assert main(["run", "--merge", "-o", "out.jsonl"]) == 4
    assert Path("out.jsonl").read_text() == "precious"


# ---- a full disk


def test_a_full_disk_ends_the_run_with_what_is_true(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a limit of the size of files, as `ulimit -f` sets."""
    lines.write_text("".join(f"{number}\n" for number in range(2000)))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
        "from director.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", "work.py:f", *LINES, "--devices", "cpu:2", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    summary = json.loads(ended.stderr)
    assert "File too large" in summary["end"]
    assert summary["succeeded"] == len(records()) > 100
    assert director(*LINES, "--resume") == 0
    assert inputs() == sorted(lines.read_text().split())


# ---- kills


def killed_and_gone_on_with(folder: Path, kills: int, seed: int) -> None:
    """Kill a run at random moments, then let it end: everything is there once, and what was there has not changed."""
    chosen = random.Random(seed)
    (folder / "in.txt").write_text("".join(f"{number}\n" for number in range(600)))
    command = [sys.executable, "-m", "director", "run", "work.py:slow", "in.txt", "--lines", "-o", "out.jsonl", "-q"]
    command += ["--devices", "cpu:2", "--resume"]
    journal, before = folder / "out.jsonl.journal", b""
    for _ in range(kills):
        child = subprocess.Popen(command, cwd=folder, start_new_session=True)
        had = journal.stat().st_size if journal.exists() else 0
        while child.poll() is None and (journal.stat().st_size if journal.exists() else 0) <= had:
            time.sleep(0.001)
        time.sleep(chosen.random() * 0.05)
        os.killpg(child.pid, signal.SIGKILL) if child.poll() is None else None
        child.wait()
        now = (folder / "out.jsonl").read_bytes()
        assert now.startswith(before)
        # What the journal vouches for stays; a record without a line may be cut.
        entries = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1] if b'"key"' in line]
        before = now[: entries[-1]["offset"] + entries[-1]["length"]] if entries else b""
    subprocess.run(command, cwd=folder, check=False)
    assert (folder / "out.jsonl").read_bytes().startswith(before)
    counts = Counter(record["input"] for record in records(str(folder / "out.jsonl")))
    assert counts == Counter(f"{number}" for number in range(600))
    for record in records(str(folder / "out.jsonl")):
        assert ("error" in record) == (int(record["input"]) % 100 == 7)


@pytest.mark.programs
def test_killed_twice_and_gone_on_with(here: Path) -> None:
    killed_and_gone_on_with(here, 2, seed=1)


@pytest.mark.slow
def test_killed_at_20_moments_and_gone_on_with(here: Path) -> None:
    killed_and_gone_on_with(here, 20, seed=random.randrange(1 << 30))


# ---- two runs


def test_two_processes_on_one_output(start: Start, gates: Gates, here: Path) -> None:
    """They start at the same time: one runs, the other one is refused whatever it asks for, and changes nothing."""
    Path("gated.py").write_text(
        "import os\n"
        "def f(device, item):\n"
        f"    with open({str(gates._folder)!r} + '/begun', 'w') as begun: begun.write(f'{{os.getpid()}}\\n')\n"
        f"    with open({gates.make('go')!r}) as gate: return gate.read()\n"
    )
    Path("in.txt").write_text("a\n")
    command = ("run", "gated.py:f", *LINES, "--devices", "cpu:1")
    two = [start(*command), start(*command)]
    (running,) = gates.wait_for(1)
    first, second = sorted(two, key=lambda child: str(child.pid) != running)
    assert second.end().status == 4  # perhaps before the first has written who it is
    for word in ("--resume", "--fresh", "--retry-failed"):
        refused = start(*command, word).end()
        assert refused.status == 4
        assert f"another run (process {running} on " in refused.err
        assert "writes out.jsonl" in refused.err
    gates.open("go", "done")
    assert first.end().status == 0
    assert [record["result"] for record in records()] == ["done"]
    assert [entry["status"] for entry in entries()] == ["ok"]


def test_a_killed_run_holds_nothing(start: Start, gates: Gates, here: Path) -> None:
    path = gates.make("go")
    Path("in.txt").write_text(f"{path}\n")
    Path("gated.py").write_text(
        "def f(device, path):\n"
        f"    with open({str(gates._folder)!r} + '/begun', 'w') as begun: begun.write('x\\n')\n"
        "    with open(path) as gate: return gate.read()\n"
    )
    command = ("run", "gated.py:f", *LINES, "--devices", "cpu:1", "--resume")
    first = start(*command)
    gates.wait_for(1)
    first.kill()
    second = start(*command)
    gates.wait_for(1)
    gates.open("go", "1")
    assert second.end().status == 0
    assert len(records()) == 1


def test_the_first_interrupt_says_the_command_that_goes_on(start: Start, gates: Gates, here: Path) -> None:
    paths = [gates.make(name) for name in ("one", "two", "three")]
    (here / "my list.txt").write_text("".join(f"{path}\n" for path in paths))
    Path("gated.py").write_text(
        "def f(device, path):\n"
        f"    with open({str(gates._folder)!r} + '/begun', 'w') as begun: begun.write(path + '\\n')\n"
        "    with open(path) as gate: return gate.read()\n"
    )
    child = start("run", "gated.py:f", "my list.txt", "--lines", "-o", "out.jsonl", "--devices", "cpu:2")
    gates.wait_for(2)
    child.interrupt()
    said = child.read_error_until("to go on")
    assert said == ("to go on: director run gated.py:f 'my list.txt' --lines -o out.jsonl --devices cpu:2 --resume\n")
    for name in ("one", "two"):
        gates.open(name, "1")
    assert child.end().status == 130
    (here / "gated.py").write_text("def f(device, path): return '2'\n")
    arguments = said.removeprefix("to go on: director ").replace("'my list.txt'", "my|list.txt").split()
    assert main([word.replace("|", " ") for word in arguments]) == 0
    assert sorted(record["result"] for record in records()) == ["1", "1", "2"]
