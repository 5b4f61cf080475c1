"""Results in files of their own, one for each item: `--out-dir` and `--template`."""

from __future__ import annotations

import os
import string
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from director.cli._run.input.items import KeyTable
from director.cli._run.output.sinks import Forwarding, Unwritten
from director.cli._run.strict_json import result_to_json
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from director.cli._run.input.items import Item
    from director.cli._run.output.sinks import Record, Sink

_FIELDS = ("relpath", "stem", "name", "parent", "key", "index")


class Template:
    """Names the file of each item's result, and makes its content.

    Args:
        folder: All files are in it.
        template: A format of `_FIELDS`; `None`: ``{relpath}.json`` for files, else ``{key}.json``.
        is_files: The items are files.

    Raises:
        UsageError: The template has another field.
    """

    def __init__(self, folder: str, template: str | None, *, is_files: bool) -> None:
        self.folder = folder
        self.text = template or ("{relpath}.json" if is_files else "{key}.json")
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None}
        except ValueError as error:
            raise UsageError(f"--template {self.text!r}: {error}") from None
        if wrong := sorted(used - set(_FIELDS)):
            raise UsageError(
                f"--template has {{{wrong[0]}}}; there are " + ", ".join(f"{{{name}}}" for name in _FIELDS)
            )
        if not used - {"parent"}:
            raise UsageError(
                f"--template {self.text!r} gives all items one file: use {{relpath}}, {{key}} or {{index}}"
            )

    def target(self, item: Item) -> str:
        """The path of the item's file.

        Raises:
            ValueError: It would be outside of the folder.
        """
        name = item.name.replace("//", "/")
        path = Path(name)
        if "\0" in name:
            raise ValueError(f"{name!r} can't be part of the name of a file: use {{key}} in --template")
        filled = self.text.format(
            relpath=name,
            stem=path.stem,
            name=path.name,
            parent=path.parent,
            key=quote(item.key, safe=" ,=@+"),
            index=item.index,
        )
        target = os.path.normpath(filled)
        if target.startswith(("/", "../")) or target in (".", ".."):
            raise ValueError(f"{filled!r} is outside of --out-dir {self.folder}")
        return os.path.join(self.folder, target)  # noqa: PTH118 -- as typed

    def is_saved(self, item: Item) -> bool:
        """Whether the item's file is there."""
        try:
            return os.path.exists(self.target(item))  # noqa: PTH110 -- a fifth of the time that Path.exists takes
        except ValueError:
            return True

    def content(self, result: object) -> bytes:
        """What is saved of a result: bytes as they are, text in UTF-8, all else as JSON.

        Raises:
            NotJSON: It contains a value that JSON can't represent.
        """
        if isinstance(result, (bytes, bytearray, memoryview)):
            return bytes(result)
        if isinstance(result, str):
            return result.encode("utf-8", "surrogatepass")
        return result_to_json(result) + b"\n"

    def check(self, items: Iterable[Item]) -> None:
        """Refuse two items of one file.

        Raises:
            UsageError: There are such items, or one whose file would be outside of the folder.
        """
        seen = KeyTable()
        for item in items:
            if item.error is not None:
                continue
            try:
                target = self.target(item)
            except ValueError as error:
                raise UsageError(f"{item.name!r}: {error}") from None
            if before := seen.put(target, item.index + 1):
                raise UsageError(
                    f"items {before - 1} and {item.index} would both be saved to {target}: give --template a field "
                    "that differs, such as {relpath} or {index}"
                )


class SavedResults(Forwarding):
    """A sink that saves contents to their files before it passes the records on."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._folders: set[str] = set()

    def write(self, records: Sequence[Record], /) -> None:
        """Save and write all of them.

        Raises:
            Unwritten: A file can't be written; the records before it are.
        """
        for number, record in enumerate(records):
            if record.content is not None:
                try:
                    self._save(record.target, record.content)
                except OSError as error:
                    self._next.write(records[:number])
                    raise Unwritten(number, error) from None
        self._next.write(records)

    def _save(self, target: str, content: bytes) -> None:
        folder, name = os.path.split(target)
        if folder not in self._folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        temporary = Path(folder, f".{name[:200]}.new")
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
