"""Keeps what models were measured to take in a file, so that the next start knows it before the first load.

The file is named by the environment variable ``DIRECTOR_FOOTPRINTS``; without it nothing is read or written. An entry
is known by the names of model and device and the version of torch, for another one takes another amount. Processes may
share the file: each writes what it knows into a new file that takes the place of the old one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from director._system.threads import call_once

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger("director")
VARIABLE = "DIRECTOR_FOOTPRINTS"
_FORMAT = "director footprints 1"
_MOST = 1 << 24  # bytes of a file that is read


class FootprintFile:
    """The file of one process. For any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._new: dict[tuple[str, str, str], int] = {}  # not written yet
        self._framework = ""
        self._is_usable = True

    def read(self) -> dict[tuple[str, str], int]:
        """What it has for this framework: bytes, by the names of model and device. Blocks; doesn't raise."""
        with self._lock:
            self._framework = _framework()
            try:
                found = self._parse()
            except (OSError, ValueError) as error:
                self._give_up(f"can't be read ({error}): delete it, or name another file")
                return {}
            return {key[:2]: size for key, size in found.items() if key[2] == self._framework}

    async def read_soon(self) -> dict[tuple[str, str], int]:
        """As `read`, on a thread of its own; nothing if none can be started. Cancellation: the thread goes on."""
        with suppress(RuntimeError):
            return await asyncio.wrap_future(call_once("director:footprints", self.read))
        return {}

    def note(self, model: str, device: str, size: int) -> None:
        """A model was measured on a device of this name: written soon, on a thread of its own."""
        self._new[model, device, self._framework] = size
        if self._is_usable:
            with suppress(RuntimeError, MemoryError):  # no thread can be started now: written with the next one
                call_once("director:footprints", self._write)

    def _write(self) -> None:
        with self._lock:
            new, self._new = self._new, {}
            if not new or not self._is_usable:
                return
            try:
                self._replace({**self._parse(), **new})
            except (OSError, ValueError) as error:
                self._give_up(f"can't be written ({error})")

    def _parse(self) -> dict[tuple[str, str, str], int]:
        """All entries; none of a file that isn't there.

        Raises:
            OSError: It can't be read.
            ValueError: It is another file, or not whole.
        """
        import json  # few programs need it

        try:
            with self._path.open("rb") as file:
                content: Any = json.loads(file.read(_MOST))
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError("it is no file of footprints")
        entries = content.get("footprints")
        if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
            raise ValueError("an entry makes no sense")
        return {(model, device, framework): size for model, device, framework, size in entries}

    def _replace(self, entries: Mapping[tuple[str, str, str], int]) -> None:
        import json
        import tempfile
        from pathlib import Path

        rows = sorted([*key, size] for key, size in entries.items())
        text = json.dumps({"format": _FORMAT, "footprints": rows}, indent=1)
        descriptor, name = tempfile.mkstemp(".tmp", f"{self._path.name}.", self._path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def _give_up(self, reason: str) -> None:
        self._is_usable = False
        logger.warning("%s, named by %s, %s: what models take is not kept", self._path, VARIABLE, reason)


def footprint_file() -> FootprintFile | None:
    """The file that the environment names; `None` if it names none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    from pathlib import Path  # few programs need it

    return FootprintFile(Path(path).absolute())


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 4 or not all(isinstance(each, str) for each in entry[:3]):
        return False
    return type(entry[3]) is int and 0 <= entry[3] < 2**63


def _framework() -> str:
    from importlib.metadata import PackageNotFoundError, version  # few programs need it

    try:
        return f"torch {version('torch')}"
    except PackageNotFoundError:
        return ""
