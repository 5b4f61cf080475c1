"""How this process was launched, as it was when `director` was imported: programs change their directory later.

Imported with `director`, so it imports nothing that an interpreter does not have anyway.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_INTERPRETER = sys.executable


def _working_directory() -> str:
    # `multiprocessing` notes it when it is imported, which may have been earlier.
    noted = getattr(sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", None)
    if isinstance(noted, str):
        return noted
    try:
        return os.getcwd()  # noqa: PTH109 - pathlib is not imported with `director`
    except OSError:  # it was removed
        return os.sep


FOLDER = _working_directory()
"""The working directory at that time."""


def interpreter() -> str:
    """The Python interpreter that runs other processes of this program; ``""`` if there is none.

    It is what `multiprocessing.set_executable` was given, else `sys.executable`.
    """
    module: Any = sys.modules.get("multiprocessing.spawn")
    given = None if module is None else module.get_executable()
    if given is not None and os.fsdecode(given) != _INTERPRETER:
        return os.fsdecode(given)
    return sys.executable or ""


def absolute(path: str) -> str:
    """A path that was relative to the working directory at that time."""
    return os.path.normpath(os.path.join(FOLDER, path))  # noqa: PTH118 - as above


def import_path(entries: Iterable[object]) -> list[str]:
    """`sys.path` as it serves a process in another directory. Entries that are no text are ignored by imports too."""
    path = []
    for entry in entries:
        if isinstance(entry, str):
            text = str.__str__(entry)
            there = absolute(text)
            path.append(there if not os.path.isabs(text) and os.path.exists(there) else text)  # noqa: PTH110, PTH117
    return path
