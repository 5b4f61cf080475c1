"""Exceptions from an actor to its driver: as in `_process.raised`, but with Ray's own cloudpickle.

That sends a class of the driver's main module by value, and finds the driver's own class again when it comes back, so
that ``except`` and ``retry_on`` know it.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._executors._process.raised import raised
from director._executors._ray.pickling import dumps
from director._faults import free_caches
from director._user_objects import describe
from director.errors import JobError

if TYPE_CHECKING:
    from director._executors._ray.wire import Payload


def packed_error(error: BaseException) -> tuple[Payload, bool]:
    """In the actor: what to send of an exception, and whether its device can't be used any more."""
    told = story(error)
    return (pickle.dumps(told), [], []), told[-1] is not None and told[-1][0] == "sticky"


def story(error: BaseException) -> tuple[Any, ...]:
    """In the actor: the fields of the `Raised` of an exception."""
    try:
        told = raised(error, lambda error: (dumps(error), []))
    except BaseException:  # noqa: BLE001 - whatever its class raises
        told = raised(JobError(f"{describe(error)} (the exception itself could not be sent from its process)"))
    if told.fault is not None and told.fault[0] == "memory":
        free_caches(error)
    return tuple(told)
