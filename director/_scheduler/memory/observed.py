"""What samples show: what others use, loads that the free memory does not allow, memory that an unload has not freed.

Guarded by `scheduler`'s lock. Others are processes that are not this Director's. They are known by samples of the free
memory of the device alone, for what NVML tells of single processes is wrong in containers. Free memory is no rule of
admission for jobs whose model is there: a caching allocator gives nothing back between its calls.

The reservation of a replica that was unloaded falls when most of its memory has been seen to come back, or after some
seconds. What is missing then stays charged, as leaked: something still refers to it, and a load in its place would run
out of memory.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Reading: TypeAlias = "tuple[int, int, int | None]"  # free memory of a device, its total, the pool of this process
_FALL_AFTER = 5.0  # seconds for which others must use less before that is believed: they load again, or one leaves


class Sample(NamedTuple):
    """The free memory of a device at one time.

    Args:
        free: Bytes that no process has.
        total: All of them.
        changes: Of this Director on the device before it.
    """

    free: int
    total: int
    changes: int


class ForeignUse:
    """Bytes that others use: more is believed at once, less after some seconds."""

    __slots__ = ("_highest", "_since", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._highest = 0  # since it is lower
        self._since: float | None = None

    def note(self, least: int, most: int, now: float) -> None:
        """Others use between `least` and `most`: how much of a load that goes on is allocated is not known."""
        if least > self.bytes:
            self.bytes, self._since = least, None
        elif most >= self.bytes:
            self._since = None
        elif self._since is None:
            self._since, self._highest = now, most
        else:
            self._highest = max(self._highest, most)
            if now - self._since >= _FALL_AFTER:
                self.bytes, self._since = self._highest, None


class Veto:
    """A load for which the ledger would have room, and the device has not.

    Args:
        model: The model's name.
        needed: Bytes.
        free: Bytes that are free on the device.
        since: When it was first seen, or a call has run on the device last.
    """

    __slots__ = ("free", "is_told", "model", "needed", "samples", "since")

    def __init__(self, model: str, needed: int, free: int, since: float) -> None:
        self.model = model
        self.needed = needed
        self.free = free
        self.since = since
        self.samples = 0  # since it was first seen
        self.is_told = False


ENOUGH = 0.75  # of the bytes of a replica that come back when it is unloaded
PATIENCE = 5.0  # seconds in which they do


class Leak(NamedTuple):
    """What did not come back."""

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
