"""Checks that no file is both read and written by a run."""

from __future__ import annotations

import os
import stat
import sys
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_Place: TypeAlias = "str | tuple[int, int]"  # a file's device and inode, or the path where there is none yet

STDIN = "-"


class Outputs:
    """The files that a run writes, by how the user named them. Made before the standard output is redirected.

    Two names mean the same file if they lead to the same inode: by links, by ``/dev/stdin``, by a descriptor that the
    shell has opened. Terminals, ``/dev/null`` and sockets are no such files: reading them never returns what was
    written.

    Args:
        output: The argument of ``--output``.
        report: The argument of ``--report``.
    """

    def __init__(self, output: str | None, report: str | None) -> None:
        self._paths = {f"{option} {path}": path for option, path in (("-o", output), ("--report", report)) if path}
        self._inherited = {name: _place(number) for name, number in (("standard output", 1), ("standard error", 2))}

    def check(self, inputs: Iterable[str]) -> None:
        """Refuse to write over an input, over the program, or two things into the same file.

        Args:
            inputs: Paths; ``-`` is the standard input.

        Raises:
            UsageError: A file would be both.
        """
        places = self._places()
        for (one, here), (other, there) in combinations(places.items(), 2):
            if here == there and not {one, other} <= self._inherited.keys():
                raise UsageError(f"{one} and {other} are the same file: each would overwrite the other; name two files")
        names: dict[_Place | None, str] = {place: name for name, place in places.items()}
        for path in inputs if names else ():
            if name := names.get(_place(0 if path == STDIN else path)):
                what = "the standard input" if path == STDIN else path
                raise UsageError(f"{what} is an input and also the output ({name}), which would destroy it: {_REMEDY}")
        for module in list(sys.modules.values()) if self._paths else ():
            source = getattr(module, "__file__", None)
            if isinstance(source, str) and (name := names.get(_place(source))):
                raise UsageError(f"{source} is part of the program and also the output ({name}): {_REMEDY}")

    def find(self, path: str) -> str | None:
        """The name of the output that lies at `path`, `None` if none does."""
        place = _place(path)
        return next((name for name, each in self._places().items() if each == place), None)

    def _places(self) -> dict[str, _Place]:
        paths = {name: _place(path) for name, path in self._paths.items()}
        return {name: place for name, place in (paths | self._inherited).items() if place is not None}


_REMEDY = "name another file, which no INPUT and no pattern means"


def _place(file: str | int) -> _Place | None:
    """The identity of a file, `None` if reading it never returns what was written."""
    try:
        found = os.stat(file)  # noqa: PTH116 -- a descriptor too
    except FileNotFoundError:
        return None if isinstance(file, int) else os.path.realpath(file)
    except (OSError, ValueError):  # it can't be opened either, which is reported on opening
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode) else None
