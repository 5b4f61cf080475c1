"""Exceptions from an actor to its driver: as in `_process.raised`, but with Ray's own cloudpickle.

That sends a class of the driver's main module by value, and finds the driver's own class again when it comes back, so
that ``except`` and ``retry_on`` know it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from director._executors._process.raised import free_caches, raised
from director._executors._ray.pickling import dumps, loads

if TYPE_CHECKING:
    from director._executors._process.raised import Raised


def told(error: BaseException) -> Raised:
    """In the actor: what to send of an exception."""
    story = raised(error)
    if story.fault is not None and story.fault[0] == "memory":
        free_caches(error)
    with suppress(Exception):  # whatever its class raises
        stream = dumps(error)
        if isinstance(loads(stream), BaseException):  # see whether it can be done
            return story._replace(stream=stream, buffers=[], reason="")
    return story
