"""Writes records on a thread of its own, so that a slow reader or disk never blocks the event loop."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any

from director.cli._run.output.sinks import Record, Unwritten
from director.cli._run.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from director.cli._run.output.sinks import Sink


class Writer:
    """Accepts records without blocking, and writes them on a thread.

    Args:
        sink: Written, and closed by `finish`, on the writer's thread.
        written: Called on the loop with how many more records have been written or dropped.
        failed: Called on the loop, once, when writing fails; later records are dropped.
        dropped: Called on the loop with records that were not written.

    Raises:
        DirectorError: The system can't start another thread.
    """

    def __init__(
        self,
        sink: Sink,
        written: Callable[[int], None],
        failed: Callable[[OSError], None],
        dropped: Callable[[Sequence[Record]], object] = len,
    ) -> None:
        self._sink = sink
        self._written = written
        self._failed = failed
        self._dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._records: queue.SimpleQueue[Record | tuple[str, int] | None] = queue.SimpleQueue()
        self._idle = asyncio.Event()
        start_thread(self._write, "director-writer")

    def put(self, record: Record) -> None:
        """Queue a record to be written."""
        self._records.put(record)

    def note_attempt(self, key: str, attempt: int) -> None:
        """Queue a note that an attempt of an item has failed and another one follows."""
        self._records.put((key, attempt))

    async def finish(self) -> None:
        """Wait until all records are written, or writing has failed."""
        self._records.put(None)
        await self._idle.wait()

    def _write(self) -> None:
        broken = False
        while True:
            records, attempts, last = self._take()
            kept = 0 if broken else len(records)
            try:
                if not broken:
                    for key, attempt in attempts:
                        self._sink.note_attempt(key, attempt)
                    if records:
                        self._sink.write(records)
                    elif not attempts and not last:
                        self._sink.sync()
            except OSError as error:
                broken, kept = True, error.kept if isinstance(error, Unwritten) else 0
                self._call_on_loop(self._failed, error.cause if isinstance(error, Unwritten) else error)
            if kept < len(records):
                self._call_on_loop(self._dropped, records[kept:])
            if records:
                self._call_on_loop(self._written, len(records))
            if last:
                try:
                    self._sink.close()
                except OSError as error:
                    self._call_on_loop(self._failed, error)
                self._call_on_loop(self._idle.set)
                return

    def _take(self) -> tuple[list[Record], list[tuple[str, int]], bool]:
        """All records and notes that are queued, and whether they are the last; nothing after the sink's pause."""
        records: list[Record] = []
        attempts: list[tuple[str, int]] = []
        try:
            entry = self._records.get(timeout=self._sink.pause)
            while entry is not None:
                if isinstance(entry, tuple):
                    attempts.append(entry)
                else:
                    records.append(entry)
                entry = self._records.get_nowait()
        except queue.Empty:
            return records, attempts, False
        return records, attempts, True

    def _call_on_loop(self, callback: Callable[..., Any], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop has been closed
            return


class InputOrder:
    """Holds records back until all records before them have been returned."""

    def __init__(self) -> None:
        self._waiting: dict[int, Record | None] = {}
        self._next = 0

    def ready(self, number: int, record: Record | None) -> Iterator[Record | None]:
        """The records that are next in order, now that record `number` is ready.

        One that was returned before and is replaced, because the item's file has changed, is returned at once.
        """
        if number < self._next:
            yield record
            return
        self._waiting[number] = record
        while self._next in self._waiting:
            yield self._waiting.pop(self._next)
            self._next += 1
