"""Files that processes lock to agree with each other.

`flock` is the system's own book: it wakes who waits, and strikes out who dies, by `kill -9` too. Nothing is ever left
to clean up, nobody has to keep a heart beating, and no process is in charge.
"""

from __future__ import annotations

import os
import stat
import tempfile
import weakref
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
"""Whether this system can do it."""

_open_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


class LockFile:
    """A file to lock; opened when it is first needed, and made anew when somebody has tidied it away.

    It belongs to one thread. A process that opens the same path twice has two of them, and one holds off the other.

    Args:
        path: Its name is all that is agreed on; what is in it is free.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        _open_files.add(self)

    def lock(self) -> None:
        """Wait until nobody else has it, and take it."""
        while True:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            if self._is_there():
                return

    def try_lock(self) -> bool:
        """Take it if nobody has it."""
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._is_there():
                return True

    def share(self) -> None:
        """Wait until nobody has it for himself, and have it together with others."""
        while True:
            fcntl.flock(self.fd, fcntl.LOCK_SH)
            if self._is_there():
                return

    def unlock(self) -> None:
        """Give it back."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @property
    def fd(self) -> int:
        """The open file."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        return self._fd

    def close(self) -> None:
        """Let go of it, and of the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_there(self) -> bool:
        """A cleaner of temporary files may have taken it away: then others will lock another file of that name."""
        if os.fstat(self._fd).st_nlink:
            return True
        self.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return False

    def __del__(self) -> None:
        self.close()


def _forget_after_fork() -> None:
    """A child holds what its parent holds, and would go on doing so after its death."""
    for file in list(_open_files):
        file.close()


if HAS_LOCKS:
    os.register_at_fork(after_in_child=_forget_after_fork)


def folder(*parts: str) -> Path:
    """Where the files of this user's processes lie: below ``DIRECTOR_RUNTIME_DIR``, else among the temporary files.

    Not below ``XDG_RUNTIME_DIR``: services don't have it, and it goes away when the user logs out.

    Raises:
        RuntimeError: It belongs to somebody else, who could keep us waiting for ever.
    """
    if chosen := os.environ.get("DIRECTOR_RUNTIME_DIR"):
        top = Path(chosen)
        top.mkdir(parents=True, exist_ok=True)
    else:
        top = Path(tempfile.gettempdir(), f"director-{os.getuid()}")
        top.mkdir(mode=0o700, exist_ok=True)
        found = top.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise RuntimeError(f"{top} belongs to somebody else: set DIRECTOR_RUNTIME_DIR to a folder of your own")
    path = top.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path
