"""Running apps, and the folder of their sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.cli._doctor.finding import Finding
from director.dashboard._places import check_folder, is_open, known_paths

if TYPE_CHECKING:
    from collections.abc import Iterator


def examine_apps() -> Iterator[Finding]:
    """Findings about the sockets that `director top` reads."""
    paths = known_paths()
    running = [path for path in paths if is_open(path)]
    names = ", ".join(f"process {path.stem.partition('-')[0]}" for path in running)
    yield Finding("apps", "apps", "ok", f"apps with an open socket: {names or 'none'}")
    stale = " ".join(str(path) for path in paths if path not in running)
    if stale:
        text = f"left over from apps that have died: {stale}"
        yield Finding("apps", "stale-socket", "note", text, "nothing: the next app takes them off")
    try:
        check_folder()
    except PermissionError as error:
        yield Finding("apps", "socket-folder", "wrong", str(error))
