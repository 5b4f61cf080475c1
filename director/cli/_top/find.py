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
        wanted: A process number, the path of a socket, or `None` for the only app there is.

    Raises:
        UsageError: There is none, or there are several.
        ConnectionError: No process listens there.
    """
    if wanted is not None and not wanted.isdecimal():
        if not is_open(Path(wanted), named=True):
            raise ConnectionError(f"no app listens at {wanted}")
        return Path(wanted)
    paths = [path for path in known_paths() if is_open(path)]
    if wanted is not None:
        paths = [path for path in paths if path.stem.partition("-")[0] == wanted]
        if not paths:
            raise ConnectionError(
                f"process {wanted} has no socket of a Dashboard open in a folder of this user or of root; name its path"
            )
    if not paths:
        raise ConnectionError(_NONE)
    if len(paths) > 1:
        lines = "\n".join(await _list(paths))
        raise UsageError("several apps are there: name one by its process number or path", f"{lines}\n")
    return paths[0]


async def _list(paths: list[Path]) -> list[str]:
    rows = await asyncio.gather(*map(_row, paths))
    return table(("process", "name", "state", "devices", "waiting", "running", "socket"), rows, left=7)


async def _row(path: Path) -> tuple[str, ...]:
    try:
        async with asyncio.timeout(_PATIENCE):
            found: dict[str, Any] = shown_document(await Remote(path).snapshot())
    except (TimeoutError, ConnectionError):
        return (path.stem.partition("-")[0], "?", "does not answer", "?", "?", "?", str(path))
    counts = found["counts"]
    return (
        str(found["pid"]),
        found["name"] or "-",
        found["state"],
        str(len(found["devices"])),
        _format.count(counts["queued"]),
        _format.count(counts["running"]),
        str(path),
    )
