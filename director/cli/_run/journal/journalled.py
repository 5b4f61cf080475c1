"""An output file with its journal: who may write them, and in which order.

`JournalledOutput` is the only writer of both files. While it is open it holds a lock on the journal, which the system
releases when the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director.cli._console import print_error
from director.cli._run.input.overlap import journal_of
from director.cli._run.journal import syntax
from director.cli._run.journal.compaction import compact, recover
from director.cli._run.journal.history import History, read_history
from director.cli._run.journal.syntax import CHANGED, FAILED, OK, RETRIED
from director.cli._run.output.sinks import Record, Unwritten
from director.cli._status import Refusal, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SYNC_SECONDS, _SYNC_ITEMS = 1.0, 1000  # at most what a power failure takes
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre")


class JournalledOutput:
    """One output file and its journal.

    Opening it changes nothing; `begin` is called when the first item can run, and from then on `write` from one thread.

    Args:
        path: Of the output; a regular file, or none yet.

    Raises:
        Refusal: Another run writes it.
        UsageError: It can't be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.journal_path = journal_of(self.path)
        self._is_new = not os.path.lexists(self.path)
        self._had_journal = os.path.lexists(self.journal_path)
        if not (folder := Path(self.path).parent).is_dir():
            raise UsageError(f"{path} can't be written: there is no folder {folder}")
        self._journal = _open_locked(self.journal_path, path)
        if recover(self.path, self.journal_path):
            self._journal.close()
            self._journal = _open_locked(self.journal_path, path)
        try:
            self._output = _open(self.path)
        except BaseException:
            self._journal.close()
            raise
        self._output_end = self._journal_end = 0
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._superseded = 0
        self._has_begun = self._is_released = False

    def size(self) -> int:
        """Bytes in the output."""
        return os.fstat(self._output.fileno()).st_size

    @property
    def has_journal(self) -> bool:
        """Whether there is a journal with a whole first line."""
        self._journal.seek(0)
        return any(b"\n" in chunk for chunk in iter(partial(self._journal.read, 1 << 16), b""))

    @property
    def is_missing(self) -> bool:
        """Whether the journal was there and the output was not."""
        return self._is_new

    def history(self) -> History:
        """What the journal says was done.

        Raises:
            Refusal: The files don't fit each other.
        """
        self._journal.seek(0)
        with open(self._output.fileno(), "rb", closefd=False) as output:
            output.seek(0)
            return read_history(self.path, self._journal, output)

    def begin(self, history: History | None, config: Mapping[str, Any], root: str, argv: Sequence[str]) -> None:
        """Start over, or go on with `history` after cutting what it does not vouch for.

        Raises:
            OSError: The journal can't be written.
        """
        self._has_begun = True
        if history is None:
            self._cut(0, 0)
            self._append(syntax.header(config, root, argv))
            return
        self._cut(history.journal_end, history.output_end)
        self._superseded = history.superseded
        self._append(syntax.resumption(config, argv))

    def write(self, records: Sequence[Record]) -> None:
        """Write records, then their lines of the journal.

        Raises:
            Unwritten: The output can't be written on; both files end with the last item that is in both.
            OSError: The journal can't be written on; so they do.
        """
        offset, lines = self._output_end, []
        end = offset
        for record in records:
            status = FAILED if record.is_failed else OK
            if record.is_superseding:
                self._superseded += 1
            item, line = record.item, record.line
            lines.append(syntax.entry(item.key, status, record.attempt, end, line, item.state))
            end += len(line)
        try:
            written = _write_all(self._output.fileno(), b"".join(record.line for record in records))
        except _Incomplete as error:
            whole = _whole_records(records, error.written)
            try:
                self._append(b"".join(lines[:whole]))
                offset += sum(len(record.line) for record in records[:whole])
            except OSError:
                whole = 0
            self._cut(self._journal_end, offset)
            raise Unwritten(whole, error.cause) from None
        try:
            self._append(b"".join(lines))
        except OSError:
            self._cut(self._journal_end, offset)
            raise
        self._output_end = offset + written
        self._unsynced += len(records)
        now = time.monotonic()
        if self._unsynced >= _SYNC_ITEMS or now - self._synced_at >= _SYNC_SECONDS:
            self.sync()

    def note_attempt(self, key: str, attempt: int) -> None:
        """Write that an attempt has failed and another one follows.

        Raises:
            OSError: The journal can't be written.
        """
        self._note(syntax.note(key, RETRIED, attempt))

    def note_change(self, key: str, attempt: int) -> None:
        """Write that the file of an item has changed while it was processed, and it is run again.

        Raises:
            OSError: The journal can't be written.
        """
        self._note(syntax.note(key, CHANGED, attempt))

    def _note(self, line: bytes) -> None:
        self._append(line)
        self._unsynced += 1

    @property
    def pause(self) -> float | None:
        """Seconds without a record after which `sync` is to be called; `None` for never."""
        return _SYNC_SECONDS if self._unsynced else None

    def sync(self) -> None:
        """Have the system write both files to the disk, the output first."""
        if self._unsynced:
            for file in (self._output, self._journal):
                with contextlib.suppress(OSError):  # EINVAL of a file system that has no such thing
                    os.fsync(file.fileno())
            self._unsynced = 0
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Take out the records that later ones have replaced, and release the lock; nothing more will be written."""
        self.sync()
        try:
            if self._has_begun and self._superseded:
                compact(self.path, self.journal_path, self._journal)
        except OSError as error:
            why = error.strerror or error
            print_error(f"{self.path} still holds the old records of items that were done again: {why}")
        finally:
            self.release()

    def release(self) -> None:
        """Close both files; those that were made and not begun are removed. May be called again."""
        if self._is_released:
            return
        self._is_released = True
        if not self._has_begun:
            for path, is_new in ((self.path, self._is_new), (self.journal_path, not self._had_journal)):
                with contextlib.suppress(OSError):
                    if is_new and Path(path).stat().st_size == 0:
                        Path(path).unlink()
        self._output.close()
        self._journal.close()

    def _append(self, lines: bytes) -> None:
        """Append to the journal; if that fails it stays as it was."""
        try:
            _write_all(self._journal.fileno(), lines)
        except _Incomplete as error:
            os.ftruncate(self._journal.fileno(), self._journal_end)
            raise error.cause from None
        self._journal_end += len(lines)

    def _cut(self, journal_end: int, output_end: int) -> None:
        """Cut both files; the journal first when starting over, so that it never vouches for what is not there."""
        os.ftruncate(self._journal.fileno(), journal_end)
        os.ftruncate(self._output.fileno(), output_end)
        self._journal_end, self._output_end = journal_end, output_end


class _Incomplete(Exception):
    """Not all could be written."""

    def __init__(self, written: int, cause: OSError) -> None:
        super().__init__(written, cause)
        self.written = written
        self.cause = cause


def _write_all(descriptor: int, lines: bytes) -> int:
    rest = memoryview(lines)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            raise _Incomplete(len(lines) - len(rest), error) from None
    return len(lines)


def _whole_records(records: Sequence[Record], written: int) -> int:
    """How many records are in the first `written` bytes."""
    for number, record in enumerate(records):
        written -= len(record.line)
        if written < 0:
            return number
    return len(records)


def _open(path: str) -> FileIO:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        return FileIO(os.open(path, flags, 0o666), "r+")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from None


def _open_locked(path: str, output: str) -> FileIO:
    """The journal, locked."""
    while True:
        file = _open(path)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                owner = _owner(file)
                file.close()
                raise Refusal(
                    f"another run{owner} writes {output}: wait for its end, or name another --output"
                ) from None
            print_error(f"{path} can't be locked ({error.strerror}): see that no other run writes {output}")
            return file
        if _is_at(path, file):
            if _is_remote(path):
                print_error(f"{path} is on a network file system, whose locks may not hold between machines")
            return file
        file.close()  # the run that held the lock has replaced the journal


def _is_at(path: str, file: FileIO) -> bool:
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def _owner(file: FileIO) -> str:
    """Who holds the lock, as far as the journal says."""
    last: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        for block in syntax.read(file):
            for document in block.documents:
                if document is not None and "pid" in document:
                    last = document
    return f" (process {last['pid']} on {last.get('host')}, since {last.get('started')})" if last else ""


def _is_remote(path: str) -> bool:
    """Whether a file is on a network file system, where the system tells."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        found = Path(path).stat().st_dev
    except OSError:
        return False
    number = f"{os.major(found)}:{os.minor(found)}"
    for line in mounts:
        fields = line.split(" ")
        if fields[2] == number and "-" in fields:
            return fields[fields.index("-") + 1].startswith(_NETWORK)
    return False
