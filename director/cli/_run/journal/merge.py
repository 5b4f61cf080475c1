"""`--merge`: joins the outputs of all shards into one."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director import _format
from director.cli import _status
from director.cli._console import print_error
from director.cli._run.input.overlap import journal_of
from director.cli._run.journal import syntax
from director.cli._run.journal.journalled import JournalledOutput
from director.cli._run.output.whole_file import WholeFile
from director.cli._status import Refusal, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from director.cli._run.journal.history import History


def merge(options: argparse.Namespace) -> int:
    """Write the records of all shards, the first shard first, and a journal with which the whole can be gone on with.

    Returns:
        The exit status: 0, or 1 if some items have failed.

    Raises:
        UsageError: There are no shards, or not all.
        Refusal: Their configurations differ, one is still written, or the output exists.
    """
    path = options.output or f"{options.out_dir.rstrip('/')}.jsonl"
    if not options.fresh and (os.path.lexists(path) or os.path.lexists(journal_of(path))):
        raise Refusal(f"{path} exists: name another --output, or --fresh replaces it")
    shards = _shards_of(path)
    opened = [JournalledOutput(shard) for shard in shards]
    try:
        histories = [_history(shard) for shard in opened]
        config = _one_config(shards, histories)
        _write(path, opened, histories, config, options.argv)
    finally:
        for shard in opened:
            shard.release()
    ok, failed = sum(each.ok for each in histories), sum(each.failed for each in histories)
    if not options.quiet:
        count = _format.counted(len(shards), "shard")
        print_error(f"{path}: {count}, {_format.counted(ok, 'item')} succeeded, {_format.count(failed)} failed")
    return _status.FAILED if failed else _status.DONE


def _shards_of(path: str) -> list[str]:
    """The outputs of all shards, in order."""
    found: dict[int, str] = {}
    totals = set()
    for each in glob.glob(f"{glob.escape(path)}.*-of-*"):  # noqa: PTH207 -- as typed
        match = re.fullmatch(r"([0-9]+)-of-([0-9]+)", each.removeprefix(f"{path}."))
        if match is not None:
            found[int(match[1])] = each
            totals.add(int(match[2]))
    if not found:
        raise UsageError(f"there is no shard of {path}, such as {path}.1-of-4")
    if len(totals) > 1:
        raise UsageError(f"{path} has shards of {' and of '.join(map(str, sorted(totals)))}: remove those of one run")
    total = totals.pop()
    if missing := [number for number in range(1, total + 1) if number not in found]:
        raise UsageError(f"shard {missing[0]} of {total} is missing: {path}.{missing[0]}-of-{total}")
    return [found[number] for number in range(1, total + 1)]


def _history(shard: JournalledOutput) -> History:
    if not shard.has_journal:
        raise Refusal(f"{shard.path} has no journal, so what is in it is not known")
    return shard.history()


def _one_config(shards: list[str], histories: list[History]) -> dict[str, Any]:
    """The configuration that all have, without the shard."""
    configs = [{part: value for part, value in each.config.items() if part != "shard"} for each in histories]
    for shard, config in zip(shards, configs, strict=True):
        for part in {**config, **configs[0]}:
            if config.get(part) != configs[0].get(part):
                raise Refusal(
                    f"{shard} is of another run than {shards[0]}: {part} is {config.get(part)!r} and "
                    f"{configs[0].get(part)!r}"
                )
    return configs[0]


def _write(
    path: str, shards: list[JournalledOutput], histories: list[History], config: dict[str, Any], argv: list[str]
) -> None:
    real = os.path.realpath(path)
    root = histories[0].header.get("root", "")
    with WholeFile(real) as output, WholeFile(journal_of(real)) as lines:
        lines.write(syntax.header(config, root, argv))
        end = 0
        for shard, history in zip(shards, histories, strict=True):
            for record, document in _records(shard, history):
                output.write(record)
                lines.write(syntax.line_of({**document, "offset": end}))
                end += len(record)
        output.finish()
        lines.finish()
        output.replace()
        lines.replace()


def _records(shard: JournalledOutput, history: History) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with Path(shard.path).open("rb") as output, Path(shard.journal_path).open("rb") as lines:
        for block in syntax.read(lines):
            for document in block.documents:
                if document is None or "offset" not in document or document["offset"] >= history.output_end:
                    continue
                output.seek(document["offset"])
                yield output.read(document["length"]), document
