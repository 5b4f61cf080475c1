"""The journal of an output: one line of JSON for the run, and one for each item that is done.

The format is documented in docs/reference/journal.md. Lines are only ever appended; a line counts when its line break
is there, and an item's line is written after its result.
"""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from json.encoder import encode_basestring  # as JSON, without escapes of what is not ASCII
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VERSION: Final = 1
OK, FAILED, RETRIED, CHANGED = 1, 2, 3, 4
_NAMES = {OK: "ok", FAILED: "failed", RETRIED: "retry", CHANGED: "changed"}
STATUSES: Final = {name: number for number, name in _NAMES.items()}
_BLOCK = 1 << 20
_LONGEST_COMMAND = 4000  # characters; a longer one, of which a shell has expanded a pattern, is cut


class Block(NamedTuple):
    """Some lines of a journal, in order.

    Args:
        start: Where the first one begins.
        lines: Without their line breaks.
        documents: What each holds; `None` for one that is no JSON object.
    """

    start: int
    lines: Sequence[bytes]
    documents: Sequence[dict[str, Any] | None]

    def offset_of(self, number: int) -> int:
        """Where a line begins in the file."""
        return self.start + sum(len(line) + 1 for line in self.lines[:number])


def read(journal: IO[bytes]) -> Iterator[Block]:
    """The lines of a journal from its beginning; what follows the last line break is left out."""
    start, rest = 0, b""
    while chunk := journal.read(_BLOCK):
        whole, found, rest = (rest + chunk).rpartition(b"\n")
        if found:
            lines = whole.split(b"\n")
            yield Block(start, lines, _parse(lines))
            start += len(whole) + 1


def _parse(lines: Sequence[bytes]) -> Sequence[dict[str, Any] | None]:
    """The document of each line. They are parsed as one array, which takes half the time of one after the other."""
    try:
        documents: list[Any] = json.loads(b"[%s]" % b",".join(lines))
    except (ValueError, RecursionError):
        return [_parse_one(line) for line in lines]
    if len(documents) != len(lines) or not all(type(each) is dict for each in documents):
        return [_parse_one(line) for line in lines]
    return documents


def _parse_one(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if type(document) is dict else None


def root_of(path: str) -> str | None:
    """The root of the run that a journal belongs to; `None` if there is no journal."""
    try:
        with Path(path).open("rb") as file:
            first = _parse_one(file.readline(_BLOCK))
    except (OSError, ValueError):
        return None
    root = None if first is None else first.get("root")
    return root if isinstance(root, str) else None


def header(config: Mapping[str, Any], root: str, argv: Sequence[str]) -> bytes:
    """The first line."""
    return line_of({"version": VERSION, "config": dict(config), "root": root, **_run(argv)})


def resumption(config: Mapping[str, Any], argv: Sequence[str]) -> bytes:
    """The line of a run that goes on with an earlier one."""
    return line_of({"resumed": True, "config": dict(config), **_run(argv)})


def _run(argv: Sequence[str]) -> dict[str, Any]:
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    shown = list(argv) if sum(map(len, argv)) < _LONGEST_COMMAND else [*argv[:20], "..."]
    return {"argv": shown, "started": started, "pid": os.getpid(), "host": socket.gethostname()}


def line_of(document: dict[str, Any]) -> bytes:
    """A line with this content."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def entry(key: str, status: int, attempt: int, offset: int, line: bytes, state: int | None) -> bytes:
    """The line of an item whose record has been written.

    Args:
        key: Of the item.
        status: `OK` or `FAILED`.
        attempt: The number of the attempt that it ended with.
        offset: Where its record begins in the output.
        line: The record.
        state: Of the file that the item is; see `items.look_at`.
    """
    file = "" if state is None else f',"file":{state}'
    return (
        f'{{"key":{encode_basestring(key)},"status":"{_NAMES[status]}","attempt":{attempt},'
        f'"offset":{offset},"length":{len(line)},"crc32":{zlib.crc32(line)}{file}}}\n'
    ).encode()


def note(key: str, status: int, attempt: int) -> bytes:
    """The line of an item that is run again: an attempt has failed, or its file has changed meanwhile."""
    return f'{{"key":{encode_basestring(key)},"status":"{_NAMES[status]}","attempt":{attempt}}}\n'.encode()
