"""Values that are arguments of many jobs: in a cluster each node fetches them once."""

from __future__ import annotations

import sys
from typing import Any, TypeVar, cast

T = TypeVar("T")


def share(value: T) -> T:
    """Something large for the arguments of many jobs, such as ``director.share(array)``.

    In a process that is connected to a Ray cluster the value is put into the object store, and a reference is returned.
    A job that gets the reference as an argument of its own (not within a list) sees the value, and each node fetches it
    once. In any other process the value itself is returned.

    Args:
        value: Anything that can be pickled. An array arrives in jobs read-only, and without a copy.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return value
    return cast("T", ray.put(value))
