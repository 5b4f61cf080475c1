"""Makes items from the INPUT arguments: files, lines, JSONL records.

Iterating and counting may block; both run on threads of their own.
"""

from __future__ import annotations

import glob
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from director.cli._run.outputs import STDIN, Outputs
from director.cli._run.records import to_json
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

InputKind: TypeAlias = Literal["files", "lines", "jsonl"]


@dataclass(frozen=True, slots=True)
class Item:
    """One call of the user's function.

    Args:
        index: Position in the input, from 0.
        value: What the function gets.
        text: The same as JSON for the record; a JSONL value is kept as it was written.
        error: Why there is no value; the item then fails without a call.
    """

    index: int
    value: Any
    text: bytes
    error: Exception | None = None


class Source(Protocol):
    """Items, read on demand."""

    paths: Sequence[str]
    """The paths they are read from; ``-`` is the standard input."""

    def __iter__(self) -> Iterator[Item]:
        """Read from the start; blocks as long as the input does."""

    def count(self) -> int | None:
        """How many items there are, `None` if that is only known by reading a stream; reads regular files once."""


def open_source(words: Sequence[str], kind: InputKind, outputs: Outputs, *, null: bool = False) -> Source:
    """The items of the INPUT arguments.

    Args:
        words: Files, glob patterns, ``-`` for the standard input.
        kind: What one item is: a file's path, a line, or a JSON record of a line.
        outputs: The outputs of the run, which paths listed on the standard input must not be.
        null: Names or lines end in a zero byte instead of a line break.

    Raises:
        UsageError: An argument matches no file, is a directory, or can't be read.
    """
    paths = [path for word in words for path in _expand(word)]
    end = b"\0" if null else b"\n"
    if kind == "files":
        return Files(paths, end, outputs)
    for path in paths:
        _check_readable(path)
    return Lines(paths, end) if kind == "lines" else Records(paths, end)


class Files:
    """The paths themselves; ``-`` stands for the paths that the standard input lists."""

    def __init__(self, paths: Sequence[str], end: bytes, outputs: Outputs) -> None:
        self.paths = paths
        self._end = end
        self._outputs = outputs

    def __iter__(self) -> Iterator[Item]:
        for index, (path, error) in enumerate(self._all()):
            yield Item(index, path, to_json(path), error)

    def count(self) -> int | None:
        return None if STDIN in self.paths else len(self.paths)

    def _all(self) -> Iterator[tuple[str, Exception | None]]:
        """Each path, and the error if it can't be used."""
        for path in self.paths:
            if path == STDIN:
                listed = (os.fsdecode(line) for line in _lines_of(STDIN, self._end) if line)
                yield from ((each, self._refusal(each)) for each in listed)
            else:
                yield path, None

    def _refusal(self, path: str) -> Exception | None:
        name = self._outputs.find(path)
        return None if name is None else ValueError(f"this run writes it ({name}), so it can't be an input")


class Lines:
    """Each line as a `str` without its line break; blank lines are lines."""

    def __init__(self, paths: Sequence[str], end: bytes) -> None:
        self.paths = paths
        self._end = end

    def __iter__(self) -> Iterator[Item]:
        lines = (line for path in self.paths for line in _lines_of(path, self._end))
        for index, line in enumerate(lines):
            yield self._item(index, line)

    def count(self) -> int | None:
        return None if not all(map(_is_regular, self.paths)) else sum(_count(path, self._end) for path in self.paths)

    def _item(self, index: int, line: bytes) -> Item:
        text = line.decode("utf-8", "surrogateescape")  # bytes that are not UTF-8 are preserved, as in paths
        return Item(index, text, to_json(text))


class Records(Lines):
    """Each line as the JSON value it holds; blank lines are skipped, a broken line is an item that fails."""

    def __iter__(self) -> Iterator[Item]:
        lines = (line for path in self.paths for line in _lines_of(path, self._end) if not line.isspace() and line)
        for index, line in enumerate(lines):
            yield self._item(index, line)

    def _item(self, index: int, line: bytes) -> Item:
        try:
            return Item(index, json.loads(line), line.strip())
        except ValueError as error:  # not JSON, or not UTF-8
            text = line.decode("utf-8", "backslashreplace")
            return Item(index, None, to_json(text), error)


def _expand(word: str) -> list[str]:
    """The file of that name, because names may contain brackets; else the sorted matches of the pattern."""
    if word == STDIN:
        return [word]
    if not os.path.lexists(word):
        found = sorted(path for path in glob.glob(word, recursive=True) if not Path(path).is_dir())  # noqa: PTH207 -- as typed
        if not found:
            raise UsageError(_no_match(word))
        return found
    if Path(word).is_dir():
        raise UsageError(f"{word} is a directory; name its files, for instance {os.path.join(word, '*')!r}")  # noqa: PTH118 -- as typed, with ./
    return [word]


def _no_match(word: str) -> str:
    what = "no file matches" if glob.has_magic(word) else "no such file:"
    return f"{what} {word!r}; words that are no files come one per line: printf '%s\\n' WORD... | director run ... -"


def _check_readable(path: str) -> None:
    if path != STDIN and not os.access(path, os.R_OK):  # not by opening it: a pipe can be opened only once
        raise UsageError(f"{path} can't be read: permission denied")


def _is_regular(path: str) -> bool:
    return path != STDIN and stat.S_ISREG(Path(path).stat().st_mode)


def _open(path: str) -> IO[bytes]:
    """A reader that does not share a buffer, also for the standard input.

    `sys.stdin` would be closed at exit while the feed's thread may still read it, which aborts the interpreter.
    """
    return open(0, "rb", closefd=False) if path == STDIN else Path(path).open("rb")


def _lines_of(path: str, end: bytes) -> Iterator[bytes]:
    with _open(path) as file:
        lines = iter(file) if end == b"\n" else _split(file, end)
        for number, line in enumerate(lines):
            line = line.removesuffix(end)
            if end == b"\n":
                line = line.removesuffix(b"\r")
            yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line  # removes a byte order mark


def _split(file: IO[bytes], end: bytes) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read1(1 << 16):  # type: ignore[attr-defined]  # both kinds of file here have it
        *whole, rest = (rest + chunk).split(end)
        yield from whole
    if rest:
        yield rest


def _count(path: str, end: bytes) -> int:
    """Lines of a regular file, by their ends.

    Blank JSONL lines are counted too, so for JSONL this is an upper bound.
    """
    total, last = 0, end
    with _open(path) as file:
        while chunk := file.read(1 << 20):
            total += chunk.count(end)
            last = chunk
    return total + (not last.endswith(end))
