"""Checks that no file is both read and written by a run."""

from __future__ import annotations

import os
import stat
import sys
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

from director.cli._run.input.reading import STDIN
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Place: TypeAlias = "str | tuple[int, int]"  # a file's device and inode, or the path where there is none yet


class Outputs:
    """The files that a run writes, by how the user named them. Made before the standard output is redirected.

    Two names mean the same file if they lead to the same inode: by links, by ``/dev/stdin``, by a descriptor that the
    shell has opened. Terminals, ``/dev/null`` and sockets are no such files: reading them never returns what was
    written.

    Args:
        paths: The path of each, by the option that names it.
        folder: All in this folder is written by the run too.
    """

    def __init__(self, paths: Mapping[str, str | None], folder: str | None = None) -> None:
        self._paths = {f"{option} {path}": path for option, path in paths.items() if path}
        self._inherited = {name: _place(number) for name, number in (("standard output", 1), ("standard error", 2))}
        self._new = {place for number in (1, 2) if (place := _place(number)) is not None and _is_empty(number)}
        self._folder = None if folder is None else f"{os.path.realpath(folder)}/"
        paths_there = {name: _place(path) for name, path in self._paths.items()}
        self._places: dict[str, _Place] = {
            name: place for name, place in (paths_there | self._inherited).items() if place is not None
        }
        self._named = {place: name for name, place in self._places.items()}
        self._own = {
            place for name, place in paths_there.items() if place is not None and not _is_foreign(*name.split(" ", 1))
        }

    def check(self, inputs: Iterable[str]) -> None:
        """Refuse to write over an input, over the program, or two things into the same file.

        Raises:
            UsageError: A file would be both.
        """
        for (one, here), (other, there) in combinations(self._places.items(), 2):
            if here == there and not {one, other} <= self._inherited.keys():
                raise UsageError(f"{one} and {other} are the same file: each would overwrite the other; name two files")
        for path in inputs if self._named else ():
            if name := self._named.get(_place(0 if path == STDIN else path) or ""):
                what = "the standard input" if path == STDIN else path
                raise UsageError(f"{what} is an input and also the output ({name}), which would destroy it: {_REMEDY}")
        for module in list(sys.modules.values()) if self._paths else ():
            source = getattr(module, "__file__", None)
            if isinstance(source, str) and (name := self._named.get(_place(source) or "")):
                raise UsageError(f"{source} is part of the program and also the output ({name}): {_REMEDY}")

    def find(self, path: str) -> str | None:
        """The name of the output that lies at `path`, `None` if none does; also of one made after this was."""
        place = _place(path)
        for name, own in self._paths.items():
            if place is not None and _place(own) == place:
                return name
        return self._named.get(place or "")

    def is_left_out(self, path: str) -> bool:
        """Whether a pattern that matches `path` does not mean it.

        That holds for what the run writes: its own outputs, also of an earlier run, and a file that the shell has just
        made for the standard output. A file to which the shell appends has contents that the pattern may mean.
        """
        if self._folder is not None and os.path.realpath(path).startswith(self._folder):
            return True
        place = _place(path)
        return place in self._own or place in self._new


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


def _is_empty(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_size == 0
    except OSError:
        return False


def _is_foreign(option: str, path: str) -> bool:
    """Whether the file for the results is there and no run of ours has written it."""
    try:
        return option == "-o" and os.path.lexists(path) and not os.path.lexists(journal_of(path))
    except ValueError:
        return False


def journal_of(output: str) -> str:
    """The journal of an output."""
    return f"{output}.journal"
