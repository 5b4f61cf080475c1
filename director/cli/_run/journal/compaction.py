"""Rewrites an output without the records that later ones have replaced, and makes the list of failures."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from director.cli._run.input.items import KeyTable
from director.cli._run.journal import syntax
from director.cli._run.output.whole_file import WholeFile

if TYPE_CHECKING:
    from collections.abc import Iterator


def compact(output: str, journal_path: str, journal_file: IO[bytes]) -> None:
    """Replace an output and its journal by ones with the last record of each item alone, in the same order.

    Attempts of items that have no record yet stay in the journal.

    Both are finished before one is put in place, the output first. After a kill in between, `recover` finds the new
    journal and puts it in place too.

    Raises:
        OSError: There is no room for the copies; nothing was changed.
    """
    last = _last_records(journal_file)
    with WholeFile(output) as new_output, WholeFile(journal_path) as new_journal, Path(output).open("rb") as old:
        end = 0
        journal_file.seek(0)
        for document in _documents(journal_file):
            if "key" not in document or ("offset" not in document and not last.get(document["key"])):
                new_journal.write(syntax.line_of(document))
            elif "offset" in document and last.get(document["key"]) == document["offset"] + 1:
                old.seek(document["offset"])
                new_output.write(old.read(document["length"]))
                new_journal.write(syntax.line_of({**document, "offset": end}))
                end += document["length"]
        new_output.finish()
        new_journal.finish()
        new_output.replace()
        new_journal.replace()


def recover(output: str, journal_path: str) -> bool:
    """End a compaction that was killed: before the output was replaced it never happened, after that it is finished.

    Returns:
        Whether the journal is another file now.
    """
    new_output, new_journal = WholeFile.temporary(output), WholeFile.temporary(journal_path)
    is_replaced = new_journal.exists() and not new_output.exists()
    if is_replaced:
        new_journal.replace(journal_path)
    for left in (new_journal, new_output):
        left.unlink(missing_ok=True)
    return is_replaced


def failures(output: str, journal_path: str) -> Iterator[bytes]:
    """The records of the items whose last attempt failed, in the order of the output."""
    with Path(journal_path).open("rb") as journal_file, Path(output).open("rb") as records:
        last = _last_records(journal_file)
        journal_file.seek(0)
        for document in _documents(journal_file):
            if document.get("status") == "failed" and last.get(document["key"]) == document["offset"] + 1:
                records.seek(document["offset"])
                yield records.read(document["length"])


def _last_records(journal_file: IO[bytes]) -> KeyTable:
    """Of each key the offset of its last record, and 1."""
    last = KeyTable()
    journal_file.seek(0)
    for document in _documents(journal_file):
        if "offset" in document:
            last.put(document["key"], document["offset"] + 1)
    return last


def _documents(journal_file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for block in syntax.read(journal_file):
        yield from (document for document in block.documents if document is not None)
