"""Files of all kinds to lines."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from director.cli._run.input.overlap import Outputs
from director.cli._run.input.reading import UnreadableInput, count_lines, lines_of
from director.cli._run.input.sources import open_source
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "one\r\ntwo größe\r\n\r\nlast"
LINES = ["one", "two größe", "", "last"]


def decoded(path: Path, end: bytes = b"\n") -> list[str]:
    return [line.decode() for line in lines_of(str(path), end)]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        gzip.compress(TEXT.encode()),
        bz2.compress(TEXT.encode()),
        lzma.compress(TEXT.encode()),
        gzip.compress(codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")),
        gzip.compress(TEXT[:9].encode()) + gzip.compress(TEXT[9:].encode()),
        gzip.compress(gzip.compress(TEXT.encode())),
        TEXT.replace("\r\n", "\r").encode(),
        gzip.compress(TEXT.replace("\r\n", "\r").encode()),
    ],
    ids=["plain", "mark", "utf-16-le", "utf-16-be", "gz", "bz2", "xz", "gz-utf-16", "gz-parts", "gz-gz", "cr", "gz-cr"],
)
def test_every_kind_gives_the_same_lines(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "input"  # not by its name
    path.write_bytes(content)
    assert decoded(path) == LINES
    counted, size = count_lines(str(path), b"\n")
    assert counted == len(LINES)
    # Of the text in UTF-8, whatever the file is; the last line may have no end, and the others one byte or two.
    assert 0 <= size + 1 - sum(len(line.encode()) + 1 for line in LINES) <= len(LINES)


def test_a_large_one_of_two_bytes_a_character(tmp_path: Path) -> None:
    lines = [f"{number} 检测 🙂" for number in range(50_000)]
    (tmp_path / "input").write_bytes(codecs.BOM_UTF16_LE + "\n".join(lines).encode("utf-16-le"))
    assert decoded(tmp_path / "input") == lines


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "input").touch()
    assert decoded(tmp_path / "input") == []
    assert count_lines(str(tmp_path / "input"), b"\n") == (0, 0)


def test_lines_that_end_in_a_zero_byte_of_a_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(gzip.compress(b"a\nb\0c\0"))
    assert decoded(tmp_path / "input", b"\0") == ["a\nb", "c"]


@pytest.mark.parametrize("kind", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_that_was_cut_gives_what_it_has(kind: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(kind(os.urandom(200_000).hex().encode())[:-20])
    with pytest.raises(OSError, match=r"is damaged|Compressed file ended"):
        decoded(path)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"\x28\xb5\x2f\xfd\0\0\0", "zstd -dc"),
        (b"PK\x03\x04\0\0", "unzip -p"),
        (b"PAR1\0\0", "Parquet"),
        (TEXT.encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
        (b"one name\0another longer name\0", "add -0"),
    ],
)
def test_what_is_not_recognised_is_refused_with_the_remedy(content: bytes, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    with pytest.raises(UnreadableInput, match=remedy):
        decoded(path)
    with pytest.raises(UsageError, match=remedy):  # before anything runs
        open_source([str(path)], "lines", Outputs({}))


def test_an_array_is_no_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text('\n[{"a": 1},\n {"a": 2}]\n')
    with pytest.raises(UsageError, match=r"is one JSON array, not JSON Lines: jq -c '\.\[\]'"):
        open_source([str(path)], "jsonl", Outputs({}))
    path.write_text("[1, 2]\n[3]\n")
    assert [item.value for item in open_source([str(path)], "jsonl", Outputs({}))] == [[1, 2], [3]]


def test_a_pipe_is_recognised_without_waiting_for_more(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    lines = lines_of(str(tmp_path / "pipe"), b"\n")
    first = threading.Thread(target=lambda: got.append(next(lines)), daemon=True)
    first.start()
    with Path(tmp_path / "pipe").open("wb", buffering=0) as writer:
        writer.write(b"a\n")
        first.join()
        assert got == [b"a"]
    assert list(lines) == []
