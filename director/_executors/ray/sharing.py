"""Values that many jobs get: in a cluster each node fetches them once."""

from __future__ import annotations

import sys
from typing import Any, TypeVar, cast

T = TypeVar("T")


def share(value: T) -> T:
    """Something large for the arguments of many jobs, such as ``director.share(array)``.

    In a process that is connected to a Ray cluster it is put into the object store, and what comes back stands for it:
    given to a job as an argument of its own (not within a list), the job gets the value, and each node fetches it once.
    In any other process it comes back as it is, for jobs share memory anyway.

    Args:
        value: Anything that can be pickled. An array arrives in jobs read-only, and without a copy.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return value
    return cast("T", ray.put(value))
