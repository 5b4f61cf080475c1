"""What this process holds, as the system and the collector see it."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from director import Job

_PREFIX = "director"  # what the names of a Director's threads begin with


class Remains(NamedTuple):
    """What is there at one moment.

    Args:
        jobs: Handles of jobs.
        objects: Everything that the collector knows.
        memory: Bytes of this process that are its own.
        descriptors: Open files, sockets and the like.
        threads: Of Directors.
        children: Processes.
    """

    jobs: int
    objects: int
    memory: int
    descriptors: int
    threads: int
    children: int


def remains() -> Remains:
    """What is there now."""
    gc.collect()
    known = gc.get_objects()
    return Remains(
        jobs=sum(type(thing) is Job for thing in known),
        objects=len(known),
        memory=_memory(),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - no path of each is wanted
        threads=sum(thread.name.startswith(_PREFIX) for thread in threading.enumerate()),
        children=len(children()),
    )


def children() -> set[int]:
    """Process ids of our children, zombies too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
