"""Makes items from the INPUT arguments: files, lines, JSONL records, rows of CSV.

Iterating and counting may block; both run on threads of their own.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from director.cli._run.input.items import Item, look_at
from director.cli._run.input.patterns import Found, expand
from director.cli._run.input.reading import STDIN, UnreadableInput, count_lines, lines_of, open_plain
from director.cli._run.strict_json import to_json
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from director.cli._run.input.overlap import Outputs

_LONGEST_FIELD = 1 << 30  # bytes of a field of CSV
InputKind: TypeAlias = Literal["files", "lines", "jsonl", "csv"]


class Source(Protocol):
    """Items, read on demand."""

    paths: Sequence[str]
    """The paths they are read from; ``-`` is the standard input."""
    can_repeat: bool
    """Whether it can be read more than once: nothing of it is a stream."""
    left_out: Sequence[str]
    """Paths that a pattern matches and that this run writes."""
    root: str
    """The folder that the names of files are relative to."""

    def __iter__(self) -> Iterator[Item]:
        """Read from the start; blocks as long as the input does."""

    def count(self) -> int | None:
        """How many items there are, `None` if that is only known by reading a stream; reads regular files once."""

    def measure(self) -> int | None:
        """The bytes of all items, `None` if they are not known."""


def open_source(
    words: Sequence[str],
    kind: InputKind,
    outputs: Outputs,
    *,
    null: bool = False,
    lists: Sequence[str] = (),
    id_field: str | None = None,
    root: str | None = None,
) -> Source:
    """The items of the INPUT arguments.

    Args:
        words: Files, glob patterns, ``-`` for the standard input.
        kind: What one item is: a file's path, a line, the JSON record of a line, a row of CSV.
        outputs: The outputs of the run, which are left out of patterns and must not be listed.
        null: Names or lines end in a zero byte instead of a line break.
        lists: Files that list paths, one a line.
        id_field: The field of a record or row that identifies it.
        root: The root of the run that is gone on with, if there was one.

    Raises:
        UsageError: An argument matches no file, is a directory, or can't be read.
    """
    found = [expand(word) for word in words]
    left_out: list[str] = []
    for number, each in enumerate(found):
        if each.is_pattern:
            found[number] = _without_outputs(words[number], each, outputs, left_out)
    end = b"\0" if null else b"\n"
    if kind == "files":
        return Files(found, lists, end, outputs, left_out, root)
    paths = [path for each in found for path in each.paths]
    for path in paths:
        _check_readable(path, end)
    if kind == "lines":
        return Lines(paths, end, left_out)
    for path in paths:
        _refuse_array(path, kind)
    return Records(paths, end, left_out, id_field) if kind == "jsonl" else Rows(paths, end, left_out, id_field)


class Files:
    """The paths themselves; ``-`` stands for the paths that the standard input lists.

    A file's name is its path relative to the root of its pattern, so that it stays the same when the tree is moved.
    With several roots it has its root in front, but for one of them, the root of the run. When that is still there and
    is none of them, the files are of another tree, and all have their roots in front.
    """

    def __init__(
        self,
        found: Sequence[Found],
        lists: Sequence[str],
        end: bytes,
        outputs: Outputs,
        left_out: Sequence[str],
        root: str | None,
    ) -> None:
        self.paths: Sequence[str] = [*(path for each in found for path in each.paths), *lists]
        self.left_out = left_out
        self.can_repeat = STDIN not in self.paths and all(map(_is_regular, lists))
        roots = [os.path.normpath(each.root or ".") for each in found] or ["."]
        self.root = roots[0] if root is None or not (root in roots or Path(root).is_dir()) else root
        base = os.path.realpath(self.root)
        self._fronts = {each: "" if os.path.realpath(each) == base else f"{each}//" for each in roots}
        self._found = found
        self._lists = lists
        self._end = end
        self._outputs = outputs

    def __iter__(self) -> Iterator[Item]:
        for index, (path, name, error) in enumerate(self._all()):
            state, size = look_at(path)
            watched = path if error is None else None
            yield Item(index, path, to_json(path), name, error, watched, path, state=state, size=size)

    def count(self) -> int | None:
        if not self.can_repeat:
            return None
        return sum(1 for _ in self._all()) if self._lists else sum(len(each.paths) for each in self._found)

    def measure(self) -> int | None:
        return sum(look_at(path)[1] for path, _, _ in self._all()) if self.can_repeat else None

    def _all(self) -> Iterator[tuple[str, str, Exception | None]]:
        """Each path, its name, and the error if it can't be used."""
        for each in self._found:
            if each.paths == [STDIN]:
                yield from self._listed(STDIN)
                continue
            root = os.path.normpath(each.root or ".")
            for path in each.paths:
                yield path, self._fronts[root] + os.path.relpath(path, root), None
        for path in self._lists:
            yield from self._listed(path)

    def _listed(self, path: str) -> Iterator[tuple[str, str, Exception | None]]:
        for line in lines_of(path, self._end):
            if line:
                each = os.fsdecode(line)
                yield each, os.path.normpath(each), self._refusal(each)

    def _refusal(self, path: str) -> Exception | None:
        name = self._outputs.find(path)
        return None if name is None else ValueError(f"this run writes it ({name}), so it can't be an input")


class Lines:
    """Each line as a `str` without its line break; blank lines are lines."""

    root = ""

    def __init__(self, paths: Sequence[str], end: bytes, left_out: Sequence[str]) -> None:
        self.paths = paths
        self.left_out = left_out
        self.can_repeat = all(map(_is_regular, paths))
        self._end = end
        self._extent: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Item]:
        for index, line in enumerate(line for path in self.paths for line in lines_of(path, self._end)):
            text = line.decode("utf-8", "surrogateescape")  # bytes that are not UTF-8 are preserved, as in paths
            yield Item(index, text, to_json(text), text, size=len(line) + 1)

    def count(self) -> int | None:
        return self._read_extent()[0] if self.can_repeat else None

    def measure(self) -> int | None:
        return self._read_extent()[1] if self.can_repeat else None

    def _read_extent(self) -> tuple[int, int]:
        """Its lines and their bytes, read once."""
        if self._extent is None:
            lines, sizes = zip(*(count_lines(path, self._end) for path in self.paths), strict=True)
            self._extent = sum(lines), sum(sizes)
        return self._extent


class Records(Lines):
    """Each line as the JSON value it holds; blank lines are skipped, a broken line is an item that fails.

    The count is an upper bound, because it has the blank lines too.
    """

    def __init__(self, paths: Sequence[str], end: bytes, left_out: Sequence[str], id_field: str | None) -> None:
        super().__init__(paths, end, left_out)
        self._id_field = id_field

    def __iter__(self) -> Iterator[Item]:
        if self._id_field is None:
            lines = (line for path in self.paths for line in lines_of(path, self._end))
            for index, line in enumerate(line for line in lines if line and not line.isspace()):
                yield self._item(index, line)
            return
        index = 0
        for path in self.paths:
            for number, line in enumerate(lines_of(path, self._end), 1):
                if line and not line.isspace():
                    item = self._item(index, line)
                    item.place, item.line = f"{path}, line {number}", number
                    yield _identified(item, self._id_field)
                    index += 1

    def _item(self, index: int, line: bytes) -> Item:
        try:
            text = line.strip()
            return Item(index, json.loads(line), text, text.decode(), size=len(line) + 1)
        except RecursionError:
            error = ValueError("nested too deeply")
        except ValueError as wrong:  # not JSON, or not UTF-8
            error = wrong
        shown = line.decode("utf-8", "backslashreplace")
        return Item(index, None, to_json(shown), shown, error, size=len(line) + 1)


class Rows(Lines):
    """Each row of CSV as a `dict` from the names of the first row; an id may be one of them."""

    def __init__(self, paths: Sequence[str], end: bytes, left_out: Sequence[str], id_field: str | None) -> None:
        super().__init__(paths, end, left_out)
        self._id_field = id_field

    def __iter__(self) -> Iterator[Item]:
        rows = (row for path in self.paths for row in self._rows(path))
        for index, (path, line, row, error) in enumerate(rows):
            text = to_json(row)
            item = Item(index, row, text, text.decode(), error, place=f"{path}, line {line}", line=line)
            yield item if self._id_field is None else _identified(item, self._id_field)

    def count(self) -> int | None:
        return sum(1 for path in self.paths for _ in self._rows(path)) if self.can_repeat else None

    def measure(self) -> int | None:
        return None  # a row may have several lines

    def _rows(self, path: str) -> Iterator[tuple[str, int, Any, Exception | None]]:
        lines = (line.decode("utf-8", "surrogateescape") + "\n" for line in lines_of(path, self._end))
        csv.field_size_limit(_LONGEST_FIELD)  # of the whole process; no other part of it reads CSV
        reader = csv.reader(lines)
        try:
            names = next(reader, [])
            for row in reader:
                if len(row) == len(names):
                    yield path, reader.line_num, dict(zip(names, row, strict=True)), None
                elif row:
                    why = f"{path}, line {reader.line_num} has {len(row)} fields, and the first row names {len(names)}"
                    yield path, reader.line_num, row, ValueError(why)
        except csv.Error as error:
            raise OSError(f"{path}, line {reader.line_num} can't be read as CSV: {error}") from None


def _identified(item: Item, field: str) -> Item:
    """The item with the value of `field` as its name; it fails if there is none."""
    if item.error is None:
        found = item.value.get(field) if isinstance(item.value, dict) else None
        if found is None:
            item.error = ValueError(f"{item.place} has no {field!r}, which --id-field names")
        else:
            item.name = found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return item


def _without_outputs(word: str, found: Found, outputs: Outputs, left_out: list[str]) -> Found:
    rest: list[str] = []
    for path in found.paths:
        (left_out if outputs.is_left_out(path) else rest).append(path)
    if not rest:
        raise UsageError(f"all that {word!r} matches is written by this run: name the files that are its input")
    return found._replace(paths=rest)


def _check_readable(path: str, end: bytes) -> None:
    """Refuse what can't be read as lines, before anything runs; pipes can be opened only once."""
    if path == STDIN:
        return
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} can't be read: permission denied")
    if _is_regular(path):
        try:
            open_plain(path, end).close()
        except UnreadableInput as error:
            raise UsageError(str(error)) from None
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror or error}") from None


def _refuse_array(path: str, kind: InputKind) -> None:
    """Refuse a file that holds one array for JSON Lines, each line of which would fail."""
    if kind != "jsonl" or not _is_regular(path):
        return
    first = next((line for line in _first_lines(path) if line.strip()), b"").strip()
    if first.startswith(b"[") and not _is_json(first):
        raise UsageError(f"{path} is one JSON array, not JSON Lines: jq -c '.[]' {path} | director run ... - --jsonl")


def _first_lines(path: str) -> Iterable[bytes]:
    with open_plain(path, b"\n") as file:
        yield from iter(lambda: file.readline(1 << 16), b"")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_regular(path: str) -> bool:
    try:
        return path != STDIN and stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False
