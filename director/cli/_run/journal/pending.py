"""Which items of the input a run is about: of its shard, and not done by an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from director.cli._run.input.items import Keys, KeyTable, shard_of
from director.cli._run.journal.syntax import FAILED, OK
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from director.cli._run.input.items import Item
    from director.cli._run.journal.history import History, Past
    from director.cli._run.output.saved import Template


@dataclass(slots=True)
class Counts:
    """Items of the input so far, by what becomes of them. Written by the thread that reads the input.

    Args:
        new: No earlier run has ended them.
        changed: Their files have changed since they were done, or those of their results are gone: they are run again.
        retried: They failed, and are tried again.
        ok: They are done, and left out.
        failed: They failed, and are left out.
        untried: They are left out because only failures are tried again.
        elsewhere: They belong to other shards.
        existing: The files of their results are there, and are left alone.
        bytes_left_out: Of all that are not run.
    """

    new: int = 0
    changed: int = 0
    retried: int = 0
    ok: int = 0
    failed: int = 0
    untried: int = 0
    elsewhere: int = 0
    existing: int = 0
    bytes_left_out: int = 0

    @property
    def left_out(self) -> int:
        """All that are not run."""
        return self.ok + self.failed + self.untried + self.elsewhere + self.existing

    @property
    def to_run(self) -> int:
        """All that are run."""
        return self.new + self.changed + self.retried


@dataclass(frozen=True, slots=True)
class Choice:
    """Which items are run.

    Args:
        history: What earlier runs have done; `None` for a run without one.
        rest: Those that no earlier run has ended.
        failures: Those that have failed.
        shard: The number of the shard, from 1, and of how many; `None`: all.
        unique: Two items of one name are an error, because the user names the field that identifies them.
        named: Items get keys, which takes memory for each; else they don't need any.
        template: Names the files of results; an item whose file is gone is run again.
        skip_existing: An item that no earlier run has ended is left out if its file is there.
    """

    history: History | None = None
    rest: bool = True
    failures: bool = False
    shard: tuple[int, int] | None = None
    unique: bool = False
    named: bool = True
    template: Template | None = None
    skip_existing: bool = False


class Pending:
    """The items that are run, read from a source. Iterated once, on a thread of its own."""

    def __init__(self, source: Iterable[Item], choice: Choice) -> None:
        self._source = source
        self._choice = choice
        self.counts = Counts()

    def __iter__(self) -> Iterator[Item]:
        """Read from the start.

        Raises:
            UsageError: Two items have one id.
        """
        choice, keys, counts = self._choice, Keys(), self.counts
        if not choice.named:
            yield from self._source
            return
        ids = _Ids() if choice.unique else None
        for item in self._source:
            if not item.name:
                item.name = item.text.decode("utf-8", "replace")
            if ids is not None:
                ids.check(item)
            key = keys.name(item)
            if choice.shard is not None and shard_of(key, choice.shard[1]) != choice.shard[0]:
                counts.elsewhere += 1
                counts.bytes_left_out += item.size
                continue
            past = None if choice.history is None else choice.history.find(key)
            if self._is_wanted(item, past):
                yield item
            else:
                counts.bytes_left_out += item.size

    def _is_wanted(self, item: Item, past: Past | None) -> bool:
        choice, counts = self._choice, self.counts
        if past is None and choice.skip_existing and choice.template is not None and choice.template.is_saved(item):
            counts.existing += 1
            return False
        if past is None:
            counts.new += choice.rest
            counts.untried += not choice.rest
            return choice.rest
        item.is_superseding = past.is_recorded
        if past.status == OK:
            is_changed = None not in (past.state, item.state) and past.state != item.state
            is_changed = is_changed or (choice.template is not None and not choice.template.is_saved(item))
            counts.changed += is_changed and choice.rest
            counts.ok += not (is_changed and choice.rest)
            return is_changed and choice.rest
        if past.status == FAILED:
            counts.retried += choice.failures
            counts.failed += not choice.failures
            return choice.failures
        counts.retried += 1
        item.attempts = 0 if choice.failures else past.attempts
        return True


def check_ids(items: Iterable[Item]) -> None:
    """Refuse a second item of an id.

    Raises:
        UsageError: There is one; with the lines of both.
    """
    ids = _Ids()
    for item in items:
        ids.check(item)


class _Ids:
    """Refuses the second item of an id."""

    def __init__(self) -> None:
        self._lines = KeyTable()

    def check(self, item: Item) -> None:
        if item.error is not None:
            return
        before = self._lines.put(item.name, item.line)
        if before:
            raise UsageError(
                f"{item.place} has the id {item.name!r}, and so has line {before}: name a field that differs with "
                "--id-field"
            )
