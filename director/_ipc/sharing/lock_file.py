"""Files that processes lock to coordinate with each other.

`flock` is kept by the operating system: it wakes the next waiting process, and releases the lock of a process that
dies, by `kill -9` too. So there is nothing to clean up, no heartbeat, and no process that manages the others.
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
"""Whether this system has `flock`."""

_open_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


class LockFile:
    """A file to lock; opened on first use, and created again when it has been deleted.

    It belongs to one thread. A process that opens the same path twice has two lock files that exclude each other.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder = folder
        self.path = folder.path / name
        self._fd = -1
        _open_files.add(self)

    def lock(self) -> None:
        """Wait until no other process holds the lock, and acquire it."""
        while True:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            if self._still_exists():
                return

    def try_lock(self) -> bool:
        """Acquire it if no other process holds it; returns whether it did."""
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._still_exists():
                return True

    def share(self) -> bool:
        """Acquire it together with others, if no process holds it exclusively; returns whether it did."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Release it."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @property
    def fd(self) -> int:
        """The open file."""
        if self._fd < 0:
            self._fd = self.folder.open(self.path.name)
        return self._fd

    def close(self) -> None:
        """Close the file, which releases the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _still_exists(self) -> bool:
        """Whether the path still leads to this file.

        A cleaner of temporary files may have deleted it; other processes then lock a new file of that name.
        """
        if os.fstat(self._fd).st_nlink:
            return True
        self.close()
        return False

    def __del__(self) -> None:
        self.close()


def _forget_after_fork() -> None:
    """Close the files in a forked child, which would keep the locks after its parent has died."""
    for file in list(_open_files):
        file.close()


if HAS_LOCKS:
    os.register_at_fork(after_in_child=_forget_after_fork)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that no other user can write to, and whose files no other user can open.

    Opening a file is enough to lock it.

    Args:
        path: Where it is.
        group: The group whose users share it; `None`: only this user uses it.
        parent: The folder that it is in, if that was created by a Director too.
    """

    path: Path
    group: int | None = None
    parent: Folder | None = None

    def below(self, name: str) -> Folder:
        """A folder in it, created if it does not exist.

        Raises:
            RuntimeError: Another user has created it.
        """
        found = Folder(self.path / name, self.group, self)
        found.make()
        return found

    def make(self) -> None:
        """Create it, unless it exists.

        Raises:
            RuntimeError: Another user has created it.
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
            raise RuntimeError(f"{self.path} belongs to another user, or is no folder: {_REMEDY}")

    def open(self, name: str) -> int:
        """A descriptor of a file in it.

        Creates the file and the folder if they don't exist: both may have been deleted.

        A new file gets its mode before its name, so that other users of the group can always open it.

        Raises:
            OSError: It can't be opened, or belongs to a user that does not share this folder.
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
                # Files of an earlier version could be opened by others.
                os.fchmod(number, self._mode)
            return number
        os.close(number)
        raise PermissionError(f"{path} belongs to another user, whose processes could make this one wait: remove it")

    def check(self) -> None:
        """Check that files in it can be locked, before a job needs one.

        Raises:
            RuntimeError: A file can't be created or opened.
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


def private_folder(name: str, *parts: str) -> Folder:
    """As `folder`, for files that only this user may reach: of mode 700, where a group shares the place too.

    Raises:
        RuntimeError: It can't be made, or belongs to another user.
    """
    top = folder()
    if top.group is not None:
        name, top = f"{name}-{os.geteuid()}", Folder(top.path)
    try:
        found = top
        for part in (name, *parts):
            found = found.below(part)
            if found.path.stat().st_mode & 0o077:
                found.path.chmod(0o700)
    except OSError as error:
        raise RuntimeError(f"no folder for a socket ({error}): {_REMEDY}") from error
    return found


def folder(*parts: str) -> Folder:
    """Where lock files lie: below ``DIRECTOR_RUNTIME_DIR``, else among the temporary files.

    A folder that all users may write to, such as ``/tmp``, holds one folder per user. ``XDG_RUNTIME_DIR`` is not used:
    services don't have it, and it is deleted when the user logs out.

    Raises:
        RuntimeError: Other users could replace or lock the files, or it can't be written.
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
        raise RuntimeError(f"all users may write to {path}, and so replace what is in it: {_REMEDY}")
    if found.st_mode & 0o002 or not is_chosen:
        return Folder(path).below(f"director-{os.geteuid()}")
    if found.st_mode & 0o020:
        if found.st_gid not in (os.getegid(), *os.getgroups()):
            raise RuntimeError(f"a group that this user isn't in may write to {path}: {_REMEDY}")
        return Folder(path, found.st_gid)
    if found.st_uid != os.geteuid():
        raise RuntimeError(f"{path} belongs to another user: {_REMEDY}")
    return Folder(path)
