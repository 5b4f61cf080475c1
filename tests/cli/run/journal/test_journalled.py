"""The journal: what it says of an output after a kill anywhere, a full disk, or a change by someone else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from director.cli._run.input.items import Item
from director.cli._run.journal import compaction, journalled
from director.cli._run.journal.compaction import failures, recover
from director.cli._run.journal.journalled import JournalledOutput
from director.cli._run.journal.plan import Wish, earlier_run
from director.cli._run.output import whole_file
from director.cli._run.output.sinks import Record, Unwritten
from director.cli._status import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from director.cli._run.journal.history import History

CONFIG = {"function": "m:f", "input": "lines"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def record(key: str, *, failed: bool = False, again: bool = False, note: str = "") -> Record:
    item = Item(0, key, b"", key, key=key)
    line = json.dumps({"input": key, "error" if failed else "result": note}).encode() + b"\n"
    return Record(line, item, 1, failed, again)


def write(path: Path, records: Iterable[Record], wish: Wish | None = None) -> None:
    """One run that ends well."""
    output = JournalledOutput(str(path))
    history = earlier_run(output, str(path), wish or Wish(resume="yes"), CONFIG)
    output.begin(history, CONFIG, "", ["run"])
    for each in records:
        output.write([each])
    output.close()


def history_of(path: Path) -> History:
    output = JournalledOutput(str(path))
    try:
        return output.history()
    finally:
        output.release()


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.journal")


def inputs(path: Path) -> list[str]:
    return [json.loads(line)["input"] for line in path.read_text().splitlines()]


def done(history: History, keys: Iterable[str]) -> set[str]:
    return {key for key in keys if history.find(key) is not None}


# ---- what it holds


def test_a_line_for_the_run_and_one_for_each_item(path: Path) -> None:
    write(path, [record("a"), record("b", failed=True)])
    head, *entries = [json.loads(line) for line in journal_of(path).read_text().splitlines()]
    assert (head["version"], head["config"], head["pid"]) == (1, CONFIG, os.getpid())
    content = path.read_bytes()
    assert [(each["key"], each["status"], each["attempt"]) for each in entries] == [("a", "ok", 1), ("b", "failed", 1)]
    for entry, line in zip(entries, content.splitlines(keepends=True), strict=True):
        assert content[entry["offset"] :][: entry["length"]] == line
    history = history_of(path)
    assert (history.ok, history.failed, history.superseded) == (1, 1, 0)
    assert history.output_end == len(content)


@pytest.mark.parametrize("key", ["a" * 40, '"' * 20, "größe 检测", "~0123456789abcdef0123456789abcdef", "x#12"])
def test_keys_come_back(key: str, path: Path) -> None:
    write(path, [record(key)])
    assert history_of(path).find(key) is not None
    assert len(journal_of(path).read_bytes().splitlines()[1]) <= 150


def test_no_item_takes_more_than_150_bytes(path: Path) -> None:
    long = record("k" * 40)
    long.item.state = 2**32 - 1
    output = JournalledOutput(str(path))
    output.begin(None, CONFIG, "", [])
    output._output_end = 99_999_999_999  # of a run of 100 GB
    output.write([Record(b"x" * 99_999, long.item)])
    output.release()
    assert len(journal_of(path).read_bytes().splitlines(keepends=True)[-1]) <= 150


# ---- a kill


@pytest.mark.parametrize("torn", ["output", "journal"])
def test_torn_at_every_byte(torn: str, path: Path) -> None:
    """What is left counts or is done again, and in the end everything is there once, as it was."""
    keys = ["one", "two", "three"]
    write(path, map(record, keys))
    whole, lines = path.read_bytes(), journal_of(path).read_bytes()
    cut = path if torn == "output" else journal_of(path)
    for size in range(len(lines.split(b"\n")[0]) + 1 if torn == "journal" else 0, cut.stat().st_size):
        path.write_bytes(whole)
        journal_of(path).write_bytes(lines)
        os.truncate(cut, size)
        before = done(history_of(path), keys)
        kept = b"".join(record(key).line for key in keys if key in before)
        assert whole.startswith(kept)
        assert len(before) == (whole[:size] if torn == "output" else lines[:size]).count(b"\n") - (torn == "journal")
        write(path, [record(key) for key in keys if key not in before])
        assert path.read_bytes() == whole
        assert done(history_of(path), keys) == set(keys)


def test_records_without_a_line_of_the_journal_are_cut_and_done_again(path: Path) -> None:
    write(path, [record("a")])
    with path.open("ab") as file:
        file.write(record("b").line + b'{"input": "c", "res')
    assert done(history_of(path), "abc") == {"a"}
    write(path, [record("b"), record("c")])
    assert inputs(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "rest", [b"\0" * 500, b'{"key": "x"', b"[1]\n", b'{"key":"b","status":"odd"}\n', b"\xff\xfe\n"]
)
def test_what_a_power_failure_leaves_at_the_end_of_the_journal_never_happened(rest: bytes, path: Path) -> None:
    write(path, [record("a")])
    with journal_of(path).open("ab") as file:
        file.write(rest)
    assert done(history_of(path), "abx") == {"a"}
    write(path, [record("b")])
    assert done(history_of(path), "abx") == {"a", "b"}


def test_results_that_never_reached_the_disk_are_done_again(path: Path) -> None:
    """The journal did, and the output has zeros in their place."""
    write(path, map(record, "abcd"))
    size = len(record("a").line)
    with path.open("r+b") as file:
        file.seek(2 * size)
        file.write(b"\0" * (2 * size))
    history = history_of(path)
    assert (done(history, "abcd"), history.lost) == ({"a", "b"}, 2)
    write(path, [record("c"), record("d")])
    assert inputs(path) == ["a", "b", "c", "d"]


# ---- changes by someone else


def test_an_output_that_was_edited_is_refused(path: Path) -> None:
    write(path, map(record, "abc"))
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"A"'))
    edited = path.read_bytes()
    with pytest.raises(Refusal, match="was changed after it was written: the record at byte 0 is not what the journal"):
        history_of(path)
    assert path.read_bytes() == edited


@pytest.mark.parametrize("number", [1, 2])
def test_a_line_taken_out_of_the_journal_is_refused(number: int, path: Path) -> None:
    write(path, map(record, "abc"))
    lines = journal_of(path).read_bytes().splitlines(keepends=True)
    journal_of(path).write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    with pytest.raises(Refusal, match="changed after it was written"):
        history_of(path)


@pytest.mark.parametrize("length", [-1, 0, 10**18, 2**70, "9", None, [1]])
def test_hostile_lengths(length: Any, path: Path) -> None:
    write(path, [record("a")])
    with journal_of(path).open("a") as file:
        entry = {"key": "b", "status": "ok", "attempt": 1, "offset": path.stat().st_size, "length": length, "crc32": 0}
        file.write(json.dumps(entry) + "\n")
    assert done(history_of(path), "ab") == {"a"}


def test_another_version_is_refused(path: Path) -> None:
    write(path, [record("a")])
    journal_of(path).write_bytes(journal_of(path).read_bytes().replace(b'"version":1', b'"version":2', 1))
    with pytest.raises(Refusal, match="has a journal of version 2, and this director writes version 1"):
        history_of(path)


# ---- who may write


def test_two_runs_on_one_output(path: Path) -> None:
    first = JournalledOutput(str(path))
    first.begin(None, CONFIG, "", ["run"])
    with pytest.raises(Refusal, match=rf"another run \(process {os.getpid()} on .*\) writes .*out.jsonl"):
        JournalledOutput(str(path))
    first.write([record("a")])
    first.close()
    assert inputs(path) == ["a"]
    write(path, [record("b")])


def test_a_link_is_the_same_output(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    first = JournalledOutput(str(tmp_path / "link.jsonl"))
    with pytest.raises(Refusal, match="another run"):
        JournalledOutput(str(path))
    first.release()


def test_a_run_that_never_began_leaves_nothing(path: Path) -> None:
    JournalledOutput(str(path)).release()
    assert list(path.parent.iterdir()) == []
    path.write_text("precious")
    JournalledOutput(str(path)).release()
    assert [each.name for each in path.parent.iterdir()] == ["out.jsonl"]
    assert path.read_text() == "precious"


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this system does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(output: JournalledOutput, size: int) -> int:
    """Write until the disk is full; how many records were written without an error."""
    written = 0
    while True:
        try:
            output.write([record(f"{written + number}", note="x" * size) for number in range(7)])
        except Unwritten as error:
            return written + error.kept
        except OSError:
            return written
        written += 7


@pytest.mark.parametrize("size", [10, 700, 5000])
def test_a_full_disk_keeps_what_is_true(size: int, small_disk: Path) -> None:
    path = small_disk / "out.jsonl"
    output = JournalledOutput(str(path))
    output.begin(None, CONFIG, "", ["run"])
    written = fill(output, size)
    output.close()
    history = history_of(path)
    assert (history.lost, path.stat().st_size) == (0, history.output_end)
    assert journal_of(path).stat().st_size == history.journal_end
    assert history.ok == written
    assert inputs(path) == [f"{number}" for number in range(history.ok)]


def test_a_journal_that_can_not_be_written_takes_its_results_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = JournalledOutput(str(path))
    output.begin(None, CONFIG, "", ["run"])
    output.write([record("a")])
    write_all = journalled._write_all

    def torn(descriptor: int, lines: bytes) -> int:
        if b'"key"' in lines:
            write_all(descriptor, lines[:20])
            raise journalled._Incomplete(20, OSError(errno.EIO, "Input/output error"))
        return write_all(descriptor, lines)

    monkeypatch.setattr(journalled, "_write_all", torn)
    with pytest.raises(OSError, match="Input/output error"):
        output.write([record("b")])
    monkeypatch.undo()
    output.close()
    assert inputs(path) == ["a"]
    history = history_of(path)
    assert (done(history, "ab"), history.journal_end) == ({"a"}, journal_of(path).stat().st_size)


# ---- records that later ones replace


def test_only_the_last_record_of_an_item_stays(path: Path) -> None:
    write(path, [record("a"), record("b", failed=True), record("c"), record("d", failed=True)])
    survivors = [record("a").line, record("c").line, record("d", failed=True).line]
    write(path, [record("b", again=True, note="now")], Wish(retry_failed=True))
    assert path.read_bytes().splitlines(keepends=True) == [*survivors, record("b", note="now").line]
    history = history_of(path)
    assert (history.ok, history.failed, history.superseded) == (3, 1, 0)
    assert list(failures(str(path), str(journal_of(path)))) == [record("d", failed=True).line]


def test_a_kill_before_the_old_records_are_removed_loses_nothing(path: Path) -> None:
    write(path, [record("a"), record("b", failed=True)])
    output = JournalledOutput(str(path))
    output.begin(earlier_run(output, str(path), Wish(retry_failed=True), CONFIG), CONFIG, "", [])
    output.write([record("b", again=True)])
    output.release()  # as a kill does
    assert inputs(path) == ["a", "b", "b"]
    write(path, [])
    assert inputs(path) == ["a", "b"]
    assert path.read_bytes() == record("a").line + record("b").line


@pytest.mark.parametrize("killed_at", range(8))
def test_a_kill_while_they_are_removed(killed_at: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, [record("a"), record("b", failed=True)])
    steps = 0

    class Killed(BaseException):
        pass

    def step(method: Any) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            nonlocal steps
            if steps == killed_at:
                raise Killed
            steps += 1
            return method(self, *arguments)

        return call

    for name in ("write", "finish", "replace"):
        monkeypatch.setattr(whole_file.WholeFile, name, step(getattr(whole_file.WholeFile, name)))
    monkeypatch.setattr(whole_file.WholeFile, "__exit__", lambda self, *_: self._file.close())  # a kill cleans nothing
    output = JournalledOutput(str(path))
    output.begin(earlier_run(output, str(path), Wish(retry_failed=True), CONFIG), CONFIG, "", [])
    output.write([record("b", again=True)])
    with pytest.raises(Killed):
        output.close()
    monkeypatch.undo()
    write(path, [])
    assert path.read_bytes() == record("a").line + record("b").line
    assert sorted(each.name for each in path.parent.iterdir()) == ["out.jsonl", "out.jsonl.journal"]
    assert done(history_of(path), "ab") == {"a", "b"}


def test_recovery_of_nothing(path: Path) -> None:
    write(path, [record("a")])
    before = path.read_bytes(), journal_of(path).read_bytes()
    assert not recover(str(path), str(journal_of(path)))
    assert (path.read_bytes(), journal_of(path).read_bytes()) == before


def test_no_room_for_the_copy_leaves_all_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(path, [record("a", failed=True)])
    monkeypatch.setattr(compaction.WholeFile, "write", full)
    write(path, [record("a", again=True)], Wish(retry_failed=True))
    assert inputs(path) == ["a", "a"]
    assert "still holds the old records of items that were done again: No space left" in capsys.readouterr().err
    monkeypatch.undo()
    write(path, [])
    assert inputs(path) == ["a"]
