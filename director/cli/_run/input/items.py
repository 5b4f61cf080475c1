"""One item of the input, and the state of the file that it is."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Item:
    """One call of the user's function.

    Args:
        index: Position in the input, from 0.
        value: What the function gets.
        text: The same as JSON for the record; a JSONL value is kept as it was written.
        name: What identifies it among the items; see `keys`. Empty: its text does.
        error: Why there is no value; the item then fails without a call.
        path: The file that it is, whose changes are noticed; `None` for other items, and for one that fails anyway.
        place: Where it is, for messages: ``data.jsonl, line 3``.
        line: The number of that line, from 1; 0 for items without an id.
        key: Its identity, set by `keys.Keys`.
        attempts: Attempts that have failed.
        state: Of its file, when it was read or its record was written; see `look_at`.
        size: Its bytes, of the file or of the line; 0 if that is not known.
        is_superseding: The output holds an earlier record of it.
        is_repeated: It is run again because its file has changed.
        number: Its position among the items that are run.
        sent_at: When it was submitted, by `time.perf_counter`.
    """

    index: int
    value: Any
    text: bytes
    name: str = ""
    error: Exception | None = None
    path: str | None = None
    place: str = ""
    line: int = 0
    key: str = ""
    attempts: int = 0
    state: int | None = None
    size: int = 0
    is_superseding: bool = False
    is_repeated: bool = False
    number: int = 0
    sent_at: float = 0.0


def look_at(path: str) -> tuple[int | None, int]:
    """A number that changes with the size and the time of the last change of a file, and its bytes.

    `None` and 0 if it can't be read.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 -- a fifth of the time that Path.stat takes
    except (OSError, ValueError):
        return None, 0
    return zlib.crc32(b"%d:%d" % (found.st_size, found.st_mtime_ns)), found.st_size
