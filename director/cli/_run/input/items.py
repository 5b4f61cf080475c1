"""The items of the input, and their identity: what a resumed run, and the shards of a run, know them by."""

from __future__ import annotations

import os
import zlib
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any


@dataclass(slots=True)
class Item:
    """One call of the user's function.

    Args:
        index: Position in the input, from 0.
        value: What the function gets.
        text: The same as JSON for the record; a JSONL value is kept as it was written.
        name: What identifies it among the items. Empty: its text does.
        error: Why there is no value; the item then fails without a call.
        path: The file that it is, whose changes are noticed; `None` for other items, and for one that fails anyway.
        place: Where it is, for messages: ``data.jsonl, line 3``.
        line: The number of that line, from 1; 0 for items without an id.
        key: Its identity, set by `Keys`.
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


_LONGEST = 40  # bytes of a key in the journal; longer ones are replaced by a digest
_MASK = (1 << 64) - 1
_PARTS, _FEWEST = 256, 16  # of a table, and places of each part at first


class KeyTable:
    """A map from keys to numbers from 1 on.

    Keys are known by a hash of 64 bits with a secret of this process: of 10 million keys, two are taken for one with a
    probability of 3 in a million.

    The table is of many parts, each up to three quarters full. They begin with different sizes, so that they double at
    different times: a key takes 16 bytes, twice that with its number, however many there are, and no growth needs a
    second table.

    Args:
        is_set: All numbers are 1, and take no memory.
    """

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._parts = [self._part(int(_FEWEST * 2 ** (number / _PARTS))) for number in range(_PARTS)]
        self._used = [0] * _PARTS

    def _part(self, size: int) -> tuple[array[int], array[int] | None]:
        """Hashes, 0 where there is none, and the number of each."""
        return array("Q", bytes(8 * size)), None if self._is_set else array("Q", bytes(8 * size))

    def __len__(self) -> int:
        return sum(self._used)

    def get(self, key: str) -> int:
        """Its number, 0 if there is none."""
        mine = hash(key) & _MASK or 1
        hashes, values = self._parts[mine % _PARTS]
        at = _place(hashes, mine)
        if not hashes[at]:
            return 0
        return 1 if values is None else values[at]

    def put(self, key: str, value: int) -> int:
        """Set its number and return the one before, 0 if there was none."""
        mine = hash(key) & _MASK or 1
        number = mine & _PARTS - 1
        hashes, values = self._parts[number]
        size = len(hashes)
        at = mine // _PARTS % size
        while (found := hashes[at]) and found != mine:  # as `_place`, without the call
            at = at + 1 if at + 1 < size else 0
        if found:
            before = 1 if values is None else values[at]
            if values is not None:
                values[at] = value
            return before
        hashes[at] = mine
        if values is not None:
            values[at] = value
        used = self._used[number] = self._used[number] + 1
        if used * 4 > size * 3:
            self._grow(number)
        return 0

    def _grow(self, number: int) -> None:
        old_hashes, old_values = self._parts[number]
        hashes, values = self._parts[number] = self._part(len(old_hashes) * 2)
        size = len(hashes)
        for was, mine in enumerate(old_hashes):
            if mine:
                at = mine // _PARTS % size
                while hashes[at]:
                    at = at + 1 if at + 1 < size else 0
                hashes[at] = mine
                if values is not None and old_values is not None:
                    values[at] = old_values[was]


def _place(hashes: array[int], mine: int) -> int:
    """Where a hash is, or the free place for it."""
    size = len(hashes)
    at = mine // _PARTS % size
    while (found := hashes[at]) and found != mine:
        at = at + 1 if at + 1 < size else 0
    return at


class Keys:
    """Gives each item its key: its name, and from the second of that name on its number among them.

    A key is short enough for a line of the journal: a long name is replaced by its digest.
    """

    def __init__(self) -> None:
        self._met = KeyTable(is_set=True)
        self._numbers: dict[str, int] = {}  # of names that were met more than once

    def name(self, item: Item) -> str:
        """Set and return the key of an item."""
        key = short(item.name)
        if self._met.put(key, 1):
            number = self._numbers[key] = self._numbers.get(key, 1) + 1
            key = f"{key}#{number}"
        item.key = key
        return key


def short(name: str) -> str:
    """The name itself if it is short and of printable characters, else ``~`` and its digest.

    So is a name that could be taken for a digest, or by ``#2`` for the second of a name.
    """
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= _LONGEST and name.isprintable() and "#" not in name and not name.startswith("~"):
        return name
    return f"~{blake2b(encoded, digest_size=16).hexdigest()}"


def shard_of(key: str, shards: int) -> int:
    """The number of the shard that an item belongs to, from 1; equal in every process and on every machine.

    Items of one name belong to one shard.
    """
    return zlib.crc32(key.partition("#")[0].encode("utf-8", "surrogatepass")) % shards + 1
