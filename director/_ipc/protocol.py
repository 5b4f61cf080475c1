"""What is sent with a call to another process, a child or an actor."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Notice(IntEnum):
    """What the parent tells a running call."""

    NONE = 0
    CANCELLED = 1
    TIME_IS_UP = 2


class CallStyle(IntEnum):
    """How a function is called."""

    WITH_RESOURCE = 0  # its resource is the first argument
    BATCH = 1  # the same, with a list of items, for a list of results
    PLAIN = 2  # without a resource
    STREAM = 3  # it makes a generator


class Facts(NamedTuple):
    """What a child may tell the function about its job."""

    id: int
    priority: int
    attempts: int
    waited: float


UNNUMBERED = -1  # instead of the number of a function or model


NO_FACTS = Facts(0, 0, 0, 0.0)
