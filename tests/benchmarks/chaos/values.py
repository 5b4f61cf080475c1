"""Values that say whose they are and which, so that one can't be taken for another. Light, for children import it."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from director.cli._bench.calls import Array

_STAMP = struct.Struct("<qq")
_SMALL, _MEDIUM, _LARGE = 4, (256, 4096), 131072  # sizes in stamps: at most 64 bytes, 4 to 64 KB, 2 MB
_SPREAD = 0x9E3779B97F4A7C15


class Value(NamedTuple):
    """One value.

    Args:
        owner: Our number of the job that it belongs to.
        number: Its place among the values of that job, from 0.
        body: The two again, as often as its size asks for: as bytes, or as memory that is pickled out of band.
    """

    owner: int
    number: int
    body: bytes | Array


class WrongArgument(Exception):
    """A call was given another job's argument."""


def make(owner: int, number: int) -> Value:
    """The value `number` of the job `owner`: of 100 values 90 are small, 9 have 4 to 64 KB, and one has 2 MB."""
    mixed = ((owner << 20) + number + 1) * _SPREAD & 0xFFFFFFFFFFFFFFFF
    mixed ^= mixed >> 29
    body = _STAMP.pack(owner, number) * _size(mixed)
    return Value(owner, number, Array(bytearray(body)) if mixed & 1 << 40 else body)


def is_whole(value: Any) -> bool:
    """Whether it is a value, and its body is its own from the first byte to the last."""
    if not isinstance(value, Value):
        return False
    body = bytes(value.body.memory) if isinstance(value.body, Array) else value.body
    times, rest = divmod(len(body), _STAMP.size)
    return times > 0 and not rest and body == _STAMP.pack(value.owner, value.number) * times


def check_argument(value: Any, owner: int) -> None:
    """In a call.

    Raises:
        WrongArgument: `value` is not what the job `owner` has sent.
    """
    if not is_whole(value) or value.owner != owner:
        raise WrongArgument(f"job {owner} was called with {describe(value)}")


def describe(value: Any) -> str:
    """In a few words."""
    if not isinstance(value, Value):
        return f"a {type(value).__name__}"
    return f"value {value.number} of job {value.owner}{'' if is_whole(value) else ', whose body belongs to another'}"


def _size(mixed: int) -> int:
    share = mixed % 100
    if share == 0:
        return _LARGE
    if share < 10:
        least, most = _MEDIUM
        return least + (mixed >> 8) % (most - least + 1)
    return 1 + (mixed >> 8) % _SMALL
