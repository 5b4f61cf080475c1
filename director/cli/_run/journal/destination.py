"""Where the records of a run go: the standard output, a file without a journal, or one with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from director.cli._console import print_error
from director.cli._run.input.items import look_at
from director.cli._run.journal.compaction import failures
from director.cli._run.journal.journalled import JournalledOutput
from director.cli._run.output.saved import SavedResults, Template
from director.cli._run.output.sinks import Descriptor, Forwarding, LinesOnly, OnTerminal, Record, Sink, Stream
from director.cli._run.output.whole_file import WholeFile, is_special
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from director.cli._run.journal.history import History


class Destination:
    """Opened before the run, and begun when the first item can run, so that a failed start changes nothing.

    Args:
        path: Of the output; `None` for the standard output.
        stdout: A descriptor for results on the standard output; `None` if there is a path.
        template: Results are saved to files of their own.
        edits: The function changes its input files itself.

    Raises:
        UsageError: It can't be written.
        Refusal: Another run writes it.
    """

    def __init__(self, path: str | None, stdout: int | None, template: Template | None, *, edits: bool) -> None:
        self.path = path
        self.journalled: JournalledOutput | None = None
        self._template = template
        self._edits = edits
        self._plain: Descriptor | None = None
        if path is None:
            assert stdout is not None
            self._plain = Descriptor(stdout)
        elif not is_special(path):
            self.journalled = JournalledOutput(path)
        else:
            self._plain = Descriptor(_open(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.journalled is not None:
            self.journalled.release()

    def sink(self, above: Callable[[], Stream | None], changed: Callable[[Record], None]) -> Sink:
        """What the writer writes to.

        Args:
            above: Returns the stream for results on a terminal that shows progress.
            changed: Called on the writer's thread with the record of an item whose file has changed meanwhile.
        """
        sink: Sink
        if self.journalled is not None:
            sink = UnchangedFiles(self.journalled, changed, edits=self._edits)
        else:
            assert self._plain is not None
            stream: Stream = self._plain
            if self._plain.on_terminal:
                stream = OnTerminal(above() or self._plain)
            sink = LinesOnly(stream)
        return sink if self._template is None else SavedResults(sink)

    def begin(self, history: History | None, config: Mapping[str, Any], root: str, argv: list[str]) -> None:
        """The first item can run: cut what is there to what the run goes on with.

        Raises:
            OSError: It can't be written.
        """
        if self.journalled is not None:
            self.journalled.begin(history, config, root, argv)

    def write_failures(self, path: str) -> bool:
        """Write the records of the failed items to a file; prints an error and returns False if that fails."""
        if self.journalled is None:
            return True
        try:
            with WholeFile(os.path.realpath(path)) as file:
                for record in failures(self.journalled.path, self.journalled.journal_path):
                    file.write(record)
                file.finish()
                file.replace()
        except OSError as error:
            print_error(f"director run: {path} can't be written: {error.strerror}")
            return False
        return True


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from None


class UnchangedFiles(Forwarding):
    """A sink that holds back the records of items whose files have changed since they were read.

    Each of them is reported once. The second record is written; if the file has changed again, the journal has its
    state from before, so that the next run finds that it has changed.

    Args:
        output: Where the others go.
        changed: Called on the writer's thread.
        edits: The function changes its files itself: only their state is noted.
    """

    def __init__(self, output: JournalledOutput, changed: Callable[[Record], None], *, edits: bool) -> None:
        super().__init__(output)
        self._output = output
        self._changed = changed
        self._edits = edits

    def write(self, records: Sequence[Record], /) -> None:
        """Write those whose files are as they were."""
        kept = [record for record in records if not self._is_held_back(record)]
        if kept:
            self._output.write(kept)

    def _is_held_back(self, record: Record) -> bool:
        item = record.item
        if item.path is None:
            return False
        state, _ = look_at(item.path)
        is_changed = not self._edits and None not in (state, item.state) and state != item.state
        if is_changed and item.is_repeated:
            return False
        item.state = state
        if is_changed:
            self._output.note_change(item.key, record.attempt)
            self._changed(record)
        return is_changed
