"""The files of the page, read once from the package. Nothing else can be asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page."""

    kind: str
    content: bytes
    etag: str


def find_file(path: str) -> File | None:
    """The file at `path` below the page's folder, `None` if there is none."""
    return _all_files().get(path)


@cache
def _all_files() -> dict[str, File]:
    return dict(_walk(files("director.dashboard") / "page", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, File]]:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif (kind := _TYPES.get(path.rpartition(".")[2])) is not None:
            content = entry.read_bytes()
            yield path, File(kind, content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
