"""Files that processes lock to agree with each other.

`flock` is the system's own book: it wakes who waits, and strikes out who dies, by `kill -9` too. Nothing is ever left
to clean up, nobody has to keep a heart beating, and no process is in charge.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass
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
        folder: Where it is.
        name: All that is agreed on; what is in it is free.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder = folder
        self.path = folder.path / name
        self._fd = -1
        _open_files.add(self)

    def lock(self) -> None:
        """Wait until nobody else has it, and take it."""
        while True:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            if self._still_exists():
                return

    def try_lock(self) -> bool:
        """Take it if nobody has it."""
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._still_exists():
                return True

    def share(self) -> bool:
        """Have it together with others, if no process has it alone."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give it back."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @property
    def fd(self) -> int:
        """The open file."""
        if self._fd < 0:
            self._fd = self.folder.open(self.path.name)
        return self._fd

    def close(self) -> None:
        """Let go of it, and of the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _still_exists(self) -> bool:
        """A cleaner of temporary files may have taken it away: then others will lock another file of that name."""
        if os.fstat(self._fd).st_nlink:
            return True
        self.close()
        return False

    def __del__(self) -> None:
        self.close()


def _forget_after_fork() -> None:
    """A child holds what its parent holds, and would go on doing so after its death."""
    for file in list(_open_files):
        file.close()


if HAS_LOCKS:
    os.register_at_fork(after_in_child=_forget_after_fork)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that no stranger can write to, and whose files no stranger can open: who can open a file can lock it.

    Args:
        path: Where it is.
        group: The users of this group share it; `None`: it is this user's alone.
        parent: The one that it is in, if that was made by a process like this one.
    """

    path: Path
    group: int | None = None
    parent: Folder | None = None

    def below(self, name: str) -> Folder:
        """A folder in it, made if it isn't there.

        Raises:
            RuntimeError: Another user has made it.
        """
        found = Folder(self.path / name, self.group, self)
        found.make()
        return found

    def make(self) -> None:
        """Make it, unless it is there.

        Raises:
            RuntimeError: Another user has made it.
        """
        if self.parent is not None and not self.parent.path.is_dir():
            self.parent.make()
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700, parents=self.parent is None)
            if self.group is not None:
                os.chown(self.path, -1, self.group)
                self.path.chmod(0o2770)
        made = self.path.lstat()
        if not stat.S_ISDIR(made.st_mode) or made.st_mode & 0o002 or not self._is_ours(made):
            raise RuntimeError(f"{self.path} belongs to somebody else, or is no folder: {_REMEDY}")

    def open(self, name: str) -> int:
        """A descriptor of a file in it, made if it isn't there; the folder too, for both may have been tidied away.

        A new file gets its mode before it gets its name, so that another user of the group never meets it closed.

        Raises:
            OSError: It can't be opened, or is no file of this folder's users.
        """
        path = self.path / name
        while True:
            try:
                number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                break
            except FileNotFoundError:
                self.make()
                self._create(path)
        found = os.fstat(number)
        if stat.S_ISREG(found.st_mode) and self._is_ours(found):
            if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != self._mode:
                os.fchmod(number, self._mode)  # an earlier version let others open it
            return number
        os.close(number)
        raise PermissionError(f"{path} belongs to somebody else, who could keep this process waiting: remove it")

    def check(self) -> None:
        """Raise why a file in it can't be used, before any job has to.

        Raises:
            RuntimeError: One can't be made or opened.
        """
        try:
            names = [path.name for path in self.path.iterdir() if path.suffix != ".new"]
            for name in [".check", *names]:
                os.close(self.open(name))
        except OSError as error:
            raise RuntimeError(f"{self.path} can't be used for locks ({error}): {_REMEDY}") from error

    @property
    def _mode(self) -> int:
        return 0o600 if self.group is None else 0o660

    def _is_ours(self, found: os.stat_result) -> bool:
        return found.st_uid == os.geteuid() or (self.group is not None and found.st_gid == self.group)

    def _create(self, path: Path) -> None:
        made = path.with_name(f".{secrets.token_hex(8)}.new")
        number = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if self.group is not None:
                os.fchown(number, -1, self.group)
            os.fchmod(number, self._mode)
            with suppress(FileExistsError):
                os.link(made, path)
        finally:
            os.close(number)
            made.unlink()


_REMEDY = (
    "set DIRECTOR_RUNTIME_DIR to a folder of your own (mode 700), or for several users to one of a group that they are "
    "in (chgrp GROUP, mode 2770)"
)


def folder(*parts: str) -> Folder:
    """Where lock files lie: below ``DIRECTOR_RUNTIME_DIR``, else among the temporary files.

    A folder that everybody may write to, as ``/tmp``, holds one for each user. Not below ``XDG_RUNTIME_DIR``: services
    don't have it, and it goes away when the user logs out.

    Raises:
        RuntimeError: Strangers could replace or lock the files, or it can't be written.
    """
    try:
        chosen = os.environ.get("DIRECTOR_RUNTIME_DIR")
        found = _top(Path(chosen or tempfile.gettempdir()), bool(chosen))
        for part in parts:
            found = found.below(part)
    except OSError as error:
        raise RuntimeError(f"no folder for locks ({error}): {_REMEDY}") from error
    return found


def _top(path: Path, is_chosen: bool) -> Folder:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    path = path.resolve()
    found = path.stat()
    if found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX:
        raise RuntimeError(f"everybody may write to {path}, and so replace what is in it: {_REMEDY}")
    if found.st_mode & 0o002 or not is_chosen:
        return Folder(path).below(f"director-{os.geteuid()}")
    if found.st_mode & 0o020:
        if found.st_gid not in (os.getegid(), *os.getgroups()):
            raise RuntimeError(f"a group that this user isn't in may write to {path}: {_REMEDY}")
        return Folder(path, found.st_gid)
    if found.st_uid != os.geteuid():
        raise RuntimeError(f"{path} belongs to somebody else: {_REMEDY}")
    return Folder(path)
