"""What an earlier run has done, from its journal, and checked against its output."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from director.cli._run.input.items import KeyTable
from director.cli._run.journal import syntax
from director.cli._run.journal.syntax import CHANGED, FAILED, OK, RETRIED, STATUSES
from director.cli._status import Refusal

if TYPE_CHECKING:
    from director.cli._run.journal.syntax import Block

# Of the numbers in the table, from the lowest bits: status 2, attempt 8, whether a record is in the output 1, whether
# the state of its file is known 1, that state 32.
_RECORDED, _WITH_STATE, _STATE = 1 << 10, 1 << 11, 12


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of an item.

    Args:
        status: `OK`, `FAILED`, or `RETRIED` for one that was to be run again when its run ended.
        attempts: Of that run.
        state: Of its file, after it was done; `None` for other items.
        is_recorded: Its record is in the output.
    """

    status: int
    attempts: int
    state: int | None
    is_recorded: bool


@dataclass(slots=True)
class History:
    """The items that are done.

    Args:
        header: The first line; empty if there is none.
        config: Of the last run.
        journal_end: Where the last whole line ends that the output agrees with.
        output_end: Where its record ends.
        superseded: Records of items that have a later one.
        ok: Items that succeeded.
        failed: Items that failed.
        lost: Lines whose records are not in the output: the machine stopped before they were written.
    """

    header: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    journal_end: int = 0
    output_end: int = 0
    superseded: int = 0
    ok: int = 0
    failed: int = 0
    lost: int = 0
    _table: KeyTable = field(default_factory=KeyTable)

    def find(self, key: str) -> Past | None:
        """What is known of an item; `None` for nothing."""
        value = self._table.get(key)
        if not value:
            return None
        state = value >> _STATE if value & _WITH_STATE else None
        return Past(value & 3, value >> 2 & 0xFF, state, bool(value & _RECORDED))


def read_history(path: str, journal_file: IO[bytes], output: IO[bytes]) -> History:
    """Read a journal and check each of its records against the output.

    A kill ends both files anywhere, a power failure may take more from one than from the other. So what the two don't
    agree on at the end never happened, and its items are done again. Where later records are whole again, someone has
    changed the files.

    Raises:
        Refusal: The journal is of another version, or one of the files was changed after it was written.
    """
    history = History()
    reader = _Reader(history, path, output)
    for block in syntax.read(journal_file):
        reader.take(block)
    return history


class _Reader:
    """Reads entries into a history, up to the first that does not agree with the output."""

    def __init__(self, history: History, path: str, output: IO[bytes]) -> None:
        self._history = history
        self._path = path
        self._output = output
        self._size = output.seek(0, os.SEEK_END)
        output.seek(0)
        self._is_over = False

    def take(self, block: Block) -> None:
        """Read the next lines."""
        number = 0
        while number < len(block.documents):
            if self._is_over:
                self._look_behind(block, number)
                return
            number = self._take_good(block, number)
            if number < len(block.documents):
                self._is_over = True
                self._history.journal_end = block.offset_of(number)
        if not self._is_over:
            self._history.journal_end = block.offset_of(number)

    def _take_good(self, block: Block, first: int) -> int:
        """Take entries from line `first` on; the number of the first one that is wrong."""
        history, table, read = self._history, self._history._table, self._output.read
        end, size, counts = history.output_end, self._size, [0, history.ok, history.failed, 0]
        try:
            for number in range(first, len(block.documents)):
                document = block.documents[number]
                if document is None:
                    break
                if "key" not in document:
                    self._take_run(document)
                    continue
                try:
                    key, status, attempt = document["key"], STATUSES[document["status"]], document["attempt"]
                    if status == CHANGED:  # this attempt neither succeeded nor failed
                        status, attempt = RETRIED, attempt - 1
                    value = status | min(attempt, 0xFF) << 2
                    if status != RETRIED:
                        length = document["length"]
                        if document["offset"] != end or not 0 < length <= size - end:
                            break
                        if zlib.crc32(read(length)) != document["crc32"]:
                            break
                        end += length
                        value |= _RECORDED
                        if "file" in document:
                            value |= _WITH_STATE | document["file"] << _STATE
                    before = table.put(key, value)
                except (KeyError, TypeError, ValueError, OverflowError):
                    break
                counts[status] += 1
                if before:
                    counts[before & 3] -= 1
                    if before & _RECORDED:
                        if status == RETRIED:
                            table.put(key, value | _RECORDED)
                        else:
                            history.superseded += 1
            else:
                return len(block.documents)
            return number
        finally:
            history.output_end, history.ok, history.failed = end, counts[OK], counts[FAILED]

    def _take_run(self, document: dict[str, Any]) -> None:
        history = self._history
        if "version" in document:
            if document["version"] != syntax.VERSION:
                raise Refusal(
                    f"{self._path} has a journal of version {document['version']}, and this director writes version "
                    f"{syntax.VERSION}: go on with the director that began it, or --fresh starts over"
                )
            history.header = document
        history.config = document.get("config", {})

    def _look_behind(self, block: Block, number: int) -> None:
        """Refuse if a line after the first wrong one is right."""
        for at in range(number, len(block.documents)):
            document = block.documents[at]
            if document is None or "key" not in document:
                continue
            self._history.lost += 1
            if self._is_in_output(document):
                raise Refusal(
                    f"{self._path} or its journal was changed after it was written: the record at byte "
                    f"{self._history.output_end} is not what the journal says, and later ones are. Restore both, or "
                    "--fresh starts over"
                )

    def _is_in_output(self, document: dict[str, Any]) -> bool:
        try:
            offset, length = document["offset"], document["length"]
            if not self._history.output_end <= offset < offset + length <= self._size:
                return False
            self._output.seek(offset)
            return bool(zlib.crc32(self._output.read(length)) == document["crc32"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
