"""Finds the app to show."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from director import _format
from director.cli._console import shown_document, table
from director.cli._status import UsageError
from director.dashboard._socket_paths import is_open, known_paths
from director.dashboard._source import Remote

_PATIENCE = 2.0  # seconds that an app may take to answer
_NONE = """\
no app of this user has a socket open. In the app, before the Director starts:

  from director.dashboard import Dashboard
  dashboard = Dashboard(director)
  async with dashboard.serve(), director:
      ..."""


async def find_app(wanted: str | None) -> Path:
    """The socket of the app.

    Args:
        wanted: The name of a Director or of a server process, a process number, the path of a socket (with a slash in
            it, or ``.sock`` at its end), or `None` for the only app there is.

    Raises:
        UsageError: There are several.
        ConnectionError: There is none, or no process listens there.
    """
    if wanted is not None and ("/" in wanted or wanted.endswith(".sock")):
        if not is_open(Path(wanted), named=True):
            raise ConnectionError(f"no app listens at {wanted}")
        return Path(wanted)
    paths = [path for path in known_paths() if is_open(path)]
    if wanted is not None:
        paths = [path for path in paths if _process(path) == wanted] or await _named(wanted, paths)
    if not paths:
        raise ConnectionError(_NONE)
    if len(paths) > 1:
        rows = [_row(path, seen) for path, seen in zip(paths, await _snapshots(paths), strict=True)]
        lines = table(("process", "name", "state", "devices", "waiting", "running", "socket"), rows, left=7)
        what = "several apps are there: name one by its Director's name, its process number or path"
        if wanted is not None:
            what = f"several apps are meant by {wanted}: name one by its process number or path"
        raise UsageError(what, "\n".join(lines) + "\n")
    return paths[0]


def _process(path: Path) -> str:
    """The process number in the name of a socket: several Directors of a process have ``<pid>-2.sock`` and so on.

    That of a server process, ``server-<name>.sock``, has its name instead.
    """
    first, _, rest = path.stem.partition("-")
    return f"{first} {rest}" if first == "server" else first


async def _named(wanted: str, paths: list[Path]) -> list[Path]:
    """The sockets of the Directors that have this name.

    Raises:
        ConnectionError: None has it.
    """
    seen = await _snapshots(paths)
    names = [None if each is None else each["name"] for each in seen]
    found = [path for path, name in zip(paths, names, strict=True) if name is not None and name == wanted]
    if not found:  # a server process, by the name that its applications give, or by its number
        servers = [path for path in paths if _process(path) == f"server {wanted}"]
        pids = ["" if each is None else str(each["pid"]) for each in seen]
        found = servers or [path for path, pid in zip(paths, pids, strict=True) if pid == wanted]
    if found or not (paths or wanted.isdecimal()):
        return found
    if wanted.isdecimal():
        where = "in a folder of this user or of root"
        raise ConnectionError(f"process {wanted} has no socket of a Dashboard open {where}; name its path")
    known = ", ".join(sorted({name for name in names if name})) or "none of those that are there has a name"
    raise ConnectionError(f"no app has a Director named {wanted}; the names are: {known}")


async def _snapshots(paths: list[Path]) -> list[dict[str, Any] | None]:
    """What each app says of itself, escaped; `None` for one that does not answer in time."""
    return await asyncio.gather(*map(_snapshot, paths))


async def _snapshot(path: Path) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            seen: dict[str, Any] = shown_document(await Remote(path).snapshot())
            return seen
    except (TimeoutError, ConnectionError):
        return None


def _row(path: Path, seen: dict[str, Any] | None) -> tuple[str, ...]:
    if seen is None:
        return (_process(path), "?", "does not answer", "?", "?", "?", str(path))
    counts = seen["counts"]
    return (
        str(seen["pid"]),
        seen["name"] or "-",
        seen["state"],
        str(len(seen["devices"])),
        _format.count(counts["queued"]),
        _format.count(counts["running"]),
        str(path),
    )
