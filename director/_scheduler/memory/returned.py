"""What an unload has not given back yet, and what never came back. Guarded by `scheduler`'s lock.

A reservation falls when most of the memory has been seen to come back, or after some seconds. What is missing then
stays charged, as leaked: something still refers to it, and a load in its place would run out of memory.
"""

from __future__ import annotations

from typing import NamedTuple

ENOUGH = 0.75  # of the bytes of a replica that come back when it is unloaded
PATIENCE = 5.0  # seconds in which they do


class Leak(NamedTuple):
    """What did not come back.

    Args:
        model: The model's name.
        bytes: How much.
        size: Of how much.
    """

    model: str
    bytes: int
    size: int


class Returning:
    """The memory of a replica that was unloaded, of which too little has come back so far.

    Args:
        model: The model's name.
        size: Bytes of the replica.
        missing: Bytes of these that have not come back.
        since: When it was unloaded.
        surplus: Bytes that this process had allocated then, beside the models that were there; `None` if nothing tells.
    """

    __slots__ = ("missing", "model", "since", "size", "surplus")

    def __init__(self, model: str, size: int, missing: int, since: float, surplus: int | None) -> None:
        self.model = model
        self.size = size
        self.missing = missing
        self.since = since
        self.surplus = surplus

    def note(self, surplus: int | None) -> bool:
        """So many bytes are allocated beside the models that are there. Returns whether enough has come back."""
        if self.surplus is not None and surplus is not None:
            self.missing = max(0, self.missing - max(0, self.surplus - surplus))
            self.surplus = min(self.surplus, surplus)
        return self.missing <= self.size * (1 - ENOUGH)


def missing(size: int, freed: int | None) -> int:
    """Bytes that an unload has not given back; 0 if it was enough, or that is not known."""
    return 0 if freed is None or freed >= size * ENOUGH else size - max(0, freed)
