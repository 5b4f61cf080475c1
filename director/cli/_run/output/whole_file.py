"""Writes a file so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class WholeFile:
    """A file that is written beside its place and then put there, with its mode if there is one already.

    Leaving the block without `replace` leaves what was there.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.temporary_path = self.temporary(path)

    @staticmethod
    def temporary(path: str | Path) -> Path:
        """Where it is written."""
        path = Path(path)
        return path.with_name(f".{path.name}.new")

    def __enter__(self) -> Self:
        self._file = self.temporary_path.open("wb")
        with contextlib.suppress(OSError):
            os.fchmod(self._file.fileno(), self._path.stat().st_mode)
        return self

    def write(self, content: bytes) -> None:
        """Append to it."""
        self._file.write(content)

    def finish(self) -> None:
        """Have all of it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def replace(self) -> None:
        """Put it in its place."""
        self._file.close()
        self.temporary_path.replace(self._path)
        folder = os.open(self._path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                os.fsync(folder)  # so that a later replacement is not on the disk before this one
        finally:
            os.close(folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self.temporary_path.unlink(missing_ok=True)


def is_special(path: str) -> bool:
    """Whether it is there and no regular file, such as a pipe."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False
