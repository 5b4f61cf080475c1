"""Notices files that change while they are processed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.cli._run.input.items import look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director.cli._run.journal.journalled import JournalledOutput
    from director.cli._run.output.sinks import Record


class UnchangedFiles:
    """A sink that holds back the records of items whose files have changed since they were read.

    Each of them is reported once. The second record is written; if the file has changed again, the journal has its
    state from before, so that the next run finds that it has changed.

    Args:
        output: Where the others go.
        changed: Called on the writer's thread.
        edits: The function changes its files itself: only their state is noted.
    """

    def __init__(self, output: JournalledOutput, changed: Callable[[Record], None], *, edits: bool) -> None:
        self._output = output
        self._changed = changed
        self._edits = edits
        self.note_attempt = output.note_attempt
        self.sync = output.sync
        self.close = output.close

    @property
    def pause(self) -> float | None:
        """As that of the output."""
        return self._output.pause

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
