"""Where running apps have their sockets, so that `director top` finds them without being told. No state."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

_LONGEST = 107  # bytes that the path of a Unix socket may have
_NAME = "director"
_NEW = 10.0  # seconds


def own_folder() -> Path:
    """The folder for this user's sockets, made if it isn't there; nobody else may look into it.

    Raises:
        PermissionError: Somebody else owns it, or may write to it.
        OSError: It can't be made.
    """
    folder = _own_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder()
    return folder


def check_folder() -> None:
    """Raise what is wrong with the folder for this user's sockets, if it is there.

    Raises:
        PermissionError: Somebody else owns it, or may write to it.
    """
    folder = _own_folder()
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must be a folder of this user alone, for who else can write there could take the place of a "
            "socket. Remove it, or set XDG_RUNTIME_DIR, or name another path for the socket"
        )


def new_path() -> Path:
    """A path for a socket of this process that isn't taken: ``<pid>.sock``, then ``<pid>-2.sock``."""
    folder = own_folder()
    _tidy(folder)
    names = itertools.chain([f"{os.getpid()}.sock"], (f"{os.getpid()}-{n}.sock" for n in itertools.count(2)))
    return next(path for name in names if not (path := folder / name).exists())


def known_paths() -> list[Path]:
    """Sockets of this user, for root of everybody, the latest first. Some may be left over from dead processes."""
    paths = {path for folder in _folders() for path in _sockets_in(folder)}
    return sorted(paths, key=_made, reverse=True)


def check_length(path: Path) -> None:
    """Raise what the system would only call an invalid argument.

    Raises:
        OSError: The path is too long for a socket.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise OSError(f"{path} is too long for a socket, which may have {_LONGEST} bytes: name a shorter path")


def is_open(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:  # its backlog is full: somebody is there, and busy
            return True
        except OSError:
            return False
    return True


def _folders() -> list[Path]:
    """Where sockets may be: an app without a login session, such as a service, has no XDG_RUNTIME_DIR."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = [Path(runtime)] if runtime else []
    if os.getuid() == 0:
        everybody = [*Path("/run/user").glob("*"), *Path("/run").glob("director*")]
        shared = list(Path(tempfile.gettempdir()).glob(f"{_NAME}-*"))
    else:
        everybody, shared = [Path(f"/run/user/{os.getuid()}")], [_shared_folder(os.getuid())]
    return [*(folder / _NAME for folder in [*own, *everybody]), *shared]


def _tidy(folder: Path) -> None:
    """Take off what apps left that died; not what is so new that its app may just be about to listen."""
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
        return [path for path in folder.glob("*.sock") if path.is_socket()]
    except OSError:
        return []


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
