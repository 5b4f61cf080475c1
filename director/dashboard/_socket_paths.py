"""Paths of the sockets of running apps, so that `director top` finds them without arguments. No state."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import struct
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_LONGEST = 107  # bytes that the path of a Unix socket may have
_NAME = "director"
_NEW = 10.0  # seconds


def own_folder() -> Path:
    """The folder for this user's sockets, created if it does not exist; other users can't read it.

    Raises:
        PermissionError: Another user owns it, or may write to it.
        OSError: It can't be made.
    """
    folder = _own_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder()
    return folder


def check_folder() -> None:
    """Check the folder for this user's sockets, if it exists.

    Raises:
        PermissionError: Another user owns it, or may write to it.
    """
    folder = _own_folder()
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must be a folder of this user alone: other users who can write there could replace a "
            "socket. Remove it, or set XDG_RUNTIME_DIR, or name another path for the socket"
        )


def new_path() -> Path:
    """A path for a socket of this process that isn't taken: ``<pid>.sock``, then ``<pid>-2.sock``."""
    folder = own_folder()
    _tidy(folder)
    names = itertools.chain([f"{os.getpid()}.sock"], (f"{os.getpid()}-{n}.sock" for n in itertools.count(2)))
    return next(path for name in names if not (path := folder / name).exists())


def server_path(name: str) -> Path:
    """The path for the socket of a server process: the same in all its applications, and that of the latest one."""
    return _own_folder() / f"server-{name}.sock"


def remove_socket(path: Path) -> None:
    """Remove a socket of this user, so that another one can have its path. Does nothing if there is none."""
    with suppress(FileNotFoundError):
        if _is_own_socket(path):
            path.unlink()


def known_paths() -> list[Path]:
    """Sockets of this user and of root, the latest first. Some may be of processes that have died.

    Folders that other users can write to are left out, because they could have created the sockets.
    """
    paths = {path for folder in _folders() if _is_safe(folder) for path in _sockets_in(folder)}
    return sorted(paths, key=_made, reverse=True)


def check_length(path: Path) -> None:
    """Check the length of a path; the system would only report an invalid argument.

    Raises:
        OSError: The path is too long for a socket.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise OSError(f"{path} is too long for a socket, which may have {_LONGEST} bytes: name a shorter path")


def is_open(path: Path, *, named: bool = False) -> bool:
    """Whether a process listens on a socket.

    Of this user or root, or of any user if the path was `named` on the command line.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            # The backlog is full: a process listens and is busy.
            return True
        except OSError:
            return False
        return named or _peer(probe) in (None, *_trusted())


def _trusted() -> tuple[int, int]:
    return os.geteuid(), 0


def _peer(connected: socket.socket) -> int | None:
    """The user whose process listens at the other end; `None` where the system doesn't say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


def _is_safe(folder: Path) -> bool:
    """Whether no user but this one and root can write to a folder or replace it."""
    try:
        found = folder.lstat()
        above = [each.stat() for each in folder.resolve().parents]
    except OSError:
        return False
    is_private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
    is_fixed = all(not each.st_mode & 0o022 or each.st_mode & stat.S_ISVTX for each in above)
    return is_private and is_fixed and all(each.st_uid in _trusted() for each in (found, *above))


def _folders() -> list[Path]:
    """Folders that may have sockets: an app without a login session, such as a service, has no XDG_RUNTIME_DIR."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = [Path(runtime)] if runtime else []
    usual = Path(f"/run/user/{os.getuid()}")
    return [*(folder / _NAME for folder in [*own, usual, Path("/run")]), _shared_folder(os.getuid()), _shared_folder(0)]


def _tidy(folder: Path) -> None:
    """Remove the sockets of apps that have died, but not new ones, whose app may be about to listen."""
    for path in _sockets_in(folder):
        if time.time() - _made(path) > _NEW and not is_open(path):
            path.unlink(missing_ok=True)


def _own_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, _NAME) if runtime else _shared_folder(os.getuid())


def _shared_folder(user: int) -> Path:
    return Path(tempfile.gettempdir(), f"{_NAME}-{user}")


def _sockets_in(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.glob("*.sock") if _is_own_socket(path)]
    except OSError:
        return []


def _is_own_socket(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISSOCK(found.st_mode) and found.st_uid in _trusted()


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
