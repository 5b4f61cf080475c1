"""INPUT words to items."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from director.cli._run.input import reading, sources
from director.cli._run.input.overlap import Outputs
from director.cli._status import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def open_source(words: list[str], kind: sources.InputKind, *, null: bool = False) -> sources.Source:
    return sources.open_source(words, kind, Outputs({}), null=null)


def values(words: list[str], kind: sources.InputKind, *, null: bool = False) -> list[object]:
    items = list(open_source(words, kind, null=null))
    assert [item.index for item in items] == list(range(len(items)))
    return [item.value for item in items]


def count(words: list[str], kind: sources.InputKind) -> int | None:
    return open_source(words, kind).count()


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    stream = io.BytesIO()
    opened = reading._open
    monkeypatch.setattr(reading, "_open", lambda path: stream if path == "-" else opened(path))
    return stream


# ---- files


def test_files_in_the_order_given(here: Path) -> None:
    for name in ("b", "a"):
        (here / name).touch()
    assert values(["b", "./a"], "files") == ["b", "./a"]
    assert count(["b", "./a"], "files") == 2


def test_patterns_are_expanded_sorted_and_without_folders(here: Path) -> None:
    (here / "x" / "deep").mkdir(parents=True)
    for name in ("x/2.png", "x/1.png", "x/deep/3.png"):
        (here / name).touch()
    assert values(["x/*"], "files") == ["x/1.png", "x/2.png"]
    assert values(["**/*.png"], "files") == ["x/1.png", "x/2.png", "x/deep/3.png"]


def test_a_name_with_brackets_is_a_name_first(here: Path) -> None:
    (here / "a[1].png").touch()
    (here / "a1.png").touch()
    assert values(["a[1].png"], "files") == ["a[1].png"]


def test_stdin_lists_files(here: Path, stdin: io.BytesIO) -> None:
    (here / "first").touch()
    stdin.write(b"one\ntwo words\n\nlast")
    stdin.seek(0)
    assert values(["first", "-"], "files") == ["first", "one", "two words", "last"]
    assert count(["first", "-"], "files") is None


def test_a_name_that_is_no_utf_8_comes_back_unharmed(here: Path) -> None:
    name = os.fsdecode(b"gr\xfc\xdfe")
    (here / name).touch()
    (item,) = open_source(["gr*"], "files")
    assert item.value == name
    assert item.text == b'"gr\\udcfc\\udcdfe"'


@pytest.mark.parametrize("kind", ["files", "lines", "jsonl"])
def test_what_is_not_there(kind: sources.InputKind, here: Path) -> None:
    (here / "folder").mkdir()
    with pytest.raises(UsageError, match=r"no such file: 'gone'; words that are no files come one per line"):
        open_source(["gone"], kind)
    with pytest.raises(UsageError, match=r"no file matches '\*\.gone'"):
        open_source(["*.gone"], kind)
    with pytest.raises(UsageError, match=r"folder is a directory; name its files, for instance 'folder/\*'"):
        open_source(["folder"], kind)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(here: Path) -> None:
    (here / "secret").touch(0o000)
    with pytest.raises(UsageError, match="secret can't be read: permission denied"):
        open_source(["secret"], "lines")


# ---- lines


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\ntwo", ["one", "", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\ntwo", ["one", "two"]),
        (b" spaces stay \n", [" spaces stay "]),
        ("größe\n".encode(), ["größe"]),
        (b"gr\xfc\xdfe\n", ["gr\udcfc\udcdfe"]),
    ],
)
def test_lines(content: bytes, lines: list[str], here: Path) -> None:
    (here / "text").write_bytes(content)
    assert values(["text"], "lines") == lines
    assert count(["text"], "lines") == len(lines)


def test_lines_of_several_files(here: Path, stdin: io.BytesIO) -> None:
    (here / "1").write_text("a\nb")
    (here / "2").write_text("c\n")
    stdin.write(b"d\n")
    stdin.seek(0)
    assert values(["1", "-", "2"], "lines") == ["a", "b", "d", "c"]
    assert count(["1", "2"], "lines") == 3
    assert count(["1", "-", "2"], "lines") is None


def test_lines_that_end_in_a_zero_byte(here: Path) -> None:
    (here / "names").write_bytes(b"one\ntwo\0" + b"x" * 100_000 + b"\0\0last")
    assert values(["names"], "lines", null=True) == ["one\ntwo", "x" * 100_000, "", "last"]
    assert open_source(["names"], "lines", null=True).count() == 4


def test_a_pipe_is_opened_once_and_not_counted(here: Path) -> None:
    os.mkfifo(here / "pipe")
    writer = os.open(here / "pipe", os.O_RDWR)
    try:
        source = open_source(["pipe"], "lines")
        assert source.count() is None
        assert source.measure() is None
        os.write(writer, b"at once\nmore to come")
        assert next(iter(source)).value == "at once"
    finally:
        os.close(writer)


# ---- records


def test_records(here: Path) -> None:
    (here / "data.jsonl").write_bytes(b'{"a": 1}\n\n  [2, 3] \r\n"text"\nnull')
    assert values(["data.jsonl"], "jsonl") == [{"a": 1}, [2, 3], "text", None]


def test_a_record_keeps_its_own_spelling(here: Path) -> None:
    (here / "data.jsonl").write_text('  {"x":1e2,  "y": 12345678901234567890.0}\n')
    (item,) = open_source(["data.jsonl"], "jsonl")
    assert item.text == b'{"x":1e2,  "y": 12345678901234567890.0}'


@pytest.mark.parametrize("line", [b"{broken", b'"\xff"', b"one two"])
def test_a_broken_record_is_an_item_that_fails(line: bytes, here: Path) -> None:
    (here / "data.jsonl").write_bytes(b"1\n" + line + b"\n2\n")
    first, broken, last = open_source(["data.jsonl"], "jsonl")
    assert (first.value, last.value) == (1, 2)
    assert isinstance(broken.error, ValueError)
    assert broken.text.startswith(b'"')


def test_the_bytes_of_all_items_are_those_of_each() -> None:
    for name, size in (("a", 10), ("b", 2000)):
        Path(name).write_bytes(b"x" * size)
    files = open_source(["a", "b", "a"], "files")
    assert [item.size for item in files] == [10, 2000, 10]
    assert files.measure() == 2020
    Path("lines").write_text("größe\n\n[1, 2]\n")
    for kind in ("lines", "jsonl"):
        lines = open_source(["lines", "lines"], kind)
        assert lines.measure() == 32
        assert sum(item.size for item in lines) in (32, 30)  # blank lines are no records
    Path("rows.csv").write_text("n\n1\n")
    assert open_source(["rows.csv"], "csv").measure() is None


def test_rows_and_lists_are_counted_where_they_can_be_read_twice() -> None:
    Path("rows.csv").write_text('n,m\n1,2\n"two\nlines",3\n\n4,5\n')
    assert count(["rows.csv"], "csv") == 3
    assert count(["rows.csv", "-"], "csv") is None
    Path("list").write_text("a\n\nb\n")
    listed = sources.open_source([], "files", Outputs({}), lists=["list"])
    assert (listed.count(), listed.measure()) == (2, 0)
