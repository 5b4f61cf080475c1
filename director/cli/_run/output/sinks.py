"""Records, and what they can be written to: a pipe, a terminal, or by the writer of an output with a journal."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from director.cli._console import shown_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director.cli._run.input.items import Item


@dataclass(slots=True)
class Record:
    """One item's line for the output, and what the journal says of it.

    Args:
        line: With its line break.
        item: The item.
        attempt: The number of the attempt that it ended with.
        is_failed: It holds an error.
        is_superseding: There is an earlier record of the item.
        content: What is saved to the item's own file; `None` for nothing.
        target: The path of that file.
    """

    line: bytes
    item: Item
    attempt: int = 1
    is_failed: bool = False
    is_superseding: bool = False
    content: bytes | None = None
    target: str = ""


class Unwritten(OSError):
    """Some of the records given to a sink could not be written.

    Args:
        kept: How many of them, from the first on, were.
        cause: Why the rest were not.
    """

    def __init__(self, kept: int, cause: OSError) -> None:
        super().__init__(kept, cause)
        self.kept = kept
        self.cause = cause


class Stream(Protocol):
    """A destination of lines."""

    def write(self, lines: bytes, /) -> None:
        """Write all of it without buffering; may block."""

    def close(self) -> None:
        """Close it; nothing more will be written."""


class Sink(Protocol):
    """A destination of records, used by the writer's thread alone."""

    def write(self, records: Sequence[Record], /) -> None:
        """Write all of them; may block.

        Raises:
            Unwritten: Some of them were written.
            OSError: None was.
        """

    def note_attempt(self, key: str, attempt: int, /) -> None:
        """Keep that an attempt has failed and another one follows."""

    @property
    def pause(self) -> float | None:
        """Seconds without a record after which `sync` is to be called; `None` for never."""

    def sync(self) -> None:
        """Have the system write what it has to the disk."""

    def close(self) -> None:
        """Close it; nothing more will be written."""


class Forwarding:
    """The part of a sink that passes everything but the records on to another one as it is."""

    def __init__(self, sink: Sink) -> None:
        self._next = sink
        self.note_attempt = sink.note_attempt
        self.sync = sink.sync
        self.close = sink.close

    @property
    def pause(self) -> float | None:
        """As that of the other sink."""
        return self._next.pause


class LinesOnly:
    """Records as lines of a stream, without a journal."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, records: Sequence[Record], /) -> None:
        """Write all of them."""
        self._stream.write(b"".join([record.line for record in records]))

    def note_attempt(self, key: str, attempt: int, /) -> None:
        """Keep nothing: such a run can't be resumed."""

    pause = None

    def sync(self) -> None:
        """Leave it to the system."""

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class Descriptor:
    """A file descriptor as a stream, without a buffer and its lock.

    A thread that is blocked in a buffered write while the interpreter exits would abort it.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, lines: bytes, /) -> None:
        """Write all of it."""
        rest = memoryview(lines)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:  # another process that shares this pipe or terminal has made it non-blocking
                select.select([], [self._number], [])

    @property
    def on_terminal(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._number)


class OnTerminal:
    """Lines of JSON on a terminal, with control characters escaped."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, lines: bytes, /) -> None:
        """Write all of it without buffering; may block."""
        self._stream.write(shown_json(lines))

    def close(self) -> None:
        """Close it; nothing more will be written."""
        self._stream.close()
