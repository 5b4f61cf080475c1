"""Expands INPUT words to paths: each file once, however many links lead to its folder."""

from __future__ import annotations

import glob
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from director.cli._run.input.reading import STDIN
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Found(NamedTuple):
    """The paths that a word stands for.

    Args:
        paths: Sorted for a pattern; ``-`` stands for the standard input.
        root: The folder that the keys of the files are relative to: the part of a pattern before its first wildcard,
            the folder of a file.
        is_pattern: Whether the word is a pattern, and not the name of a file.
    """

    paths: Sequence[str]
    root: str
    is_pattern: bool = False


def expand(word: str) -> Found:
    """The file of that name, because names may contain brackets; else the matches of the pattern, without folders.

    Raises:
        UsageError: There is no such file, no match, or it is a folder.
    """
    if word == STDIN:
        return Found([word], "")
    if not os.path.lexists(word):
        files = (path for path in _by_one_path(_matches(word)) if not os.path.isdir(path))  # noqa: PTH112 -- faster
        found = [path for path, _ in itertools.groupby(sorted(files))]  # `**/**` meets a folder several times
        if not found:
            raise UsageError(_no_match(word))
        return Found(found, _root_of(word), is_pattern=True)
    if Path(word).is_dir():
        raise UsageError(f"{word} is a directory; name its files, for instance {os.path.join(word, '*')!r}")  # noqa: PTH118 -- as typed, with ./
    return Found([word], os.path.dirname(word))  # noqa: PTH120 -- as typed


def _root_of(pattern: str) -> str:
    """``photos`` of ``photos/**/*.jpg``."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part) or number == len(parts) - 1)
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else "")


def _no_match(word: str) -> str:
    what = "no file matches" if glob.has_magic(word) else "no such file:"
    return f"{what} {word!r}; words that are no files come one per line: printf '%s\\n' WORD... | director run ... -"


def _matches(pattern: str) -> Iterator[str]:
    """As `glob.glob` with ``recursive=True``, but ``**`` enters each folder once.

    A link to a folder is followed unless that folder is in the tree too: through a link to a folder above it, `glob`
    would find every file forty times.
    """
    before, stars, after = _at_stars(pattern)
    if not stars:
        yield from sorted(glob.glob(pattern))  # noqa: PTH207 -- as typed
        return
    after = after or "*"
    for base in glob.glob(before) if before else [""]:  # noqa: PTH207 -- as typed
        for folder in _folders(base):
            yield from _matches(glob.escape(folder) + after)


def _at_stars(pattern: str) -> tuple[str, bool, str]:
    """The pattern before and after its first ``**``; ``before`` keeps its slash."""
    parts = pattern.split("/")
    if "**" not in parts:
        return pattern, False, ""
    at = parts.index("**")
    before = "/".join(parts[:at]) + ("/" if at else "")
    return before, True, "/".join(parts[at + 1 :])


def _folders(base: str) -> Iterator[str]:
    """The folder and all below it, with a slash at the end; hidden ones are left out. Links come last."""
    entered: set[tuple[int, int]] = set()
    links = [base]
    for link in links:  # grows meanwhile
        open_folders = [link]
        while open_folders:
            folder = open_folders.pop()
            if not _enter(folder, entered):
                continue
            yield folder
            for name, is_link in _subfolders(folder):
                (links if is_link else open_folders).append(f"{folder}{name}/")


def _enter(folder: str, entered: set[tuple[int, int]]) -> bool:
    try:
        found = Path(folder or ".").stat()
    except OSError:
        return False
    place = (found.st_dev, found.st_ino)
    is_new = place not in entered
    entered.add(place)
    return is_new


def _subfolders(folder: str) -> list[tuple[str, bool]]:
    """The name of each folder in it that is not hidden, and whether it is a link."""
    try:
        with os.scandir(folder or ".") as entries:
            return [
                (entry.name, entry.is_symlink())
                for entry in entries
                if not entry.name.startswith(".") and _is_folder(entry.is_dir)
            ]
    except OSError:
        return []


def _is_folder(is_dir: Callable[[], bool]) -> bool:
    try:
        return is_dir()
    except OSError:
        return False


def _by_one_path(paths: Iterator[str]) -> Iterator[str]:
    """Without the files that are found again through a link to their folder.

    All are matches of one pattern, whose last part is a name: each folder has the same matches by whatever path.
    """
    first: dict[str, str] = {}  # the path by which each folder was met first
    is_first: dict[str, bool] = {}  # of each path of a folder
    for path in paths:
        folder = os.path.dirname(path)  # noqa: PTH120 -- as typed
        if folder not in is_first:
            is_first[folder] = first.setdefault(os.path.realpath(folder), folder) == folder
        if is_first[folder]:
            yield path
