"""Users' numbers as our own: an exact `int` or `float`, or a refusal that names the option and its limits.

An `int`, a `float` or one of their subclasses (an enum, say), a `Decimal`, a `Fraction` and a scalar of NumPy are taken
as what they are, once, on the thread of who gives them: nothing later asks the user's object again.
"""

from __future__ import annotations

import operator
from typing import Any

from director._user_objects import is_a, repr_of

MOST = 1.7976931348623157e308  # the largest float
_FARTHEST = 2**63
_MOST_SECONDS = 10**9  # thirty years
_LONGEST = 200  # characters of a value in a message


def whole(name: str, value: Any, least: int | None = None, kind: str = "an int") -> int:
    """An `int`.

    Args:
        name: Of the option.
        value: What was given.
        least: The limit below.
        kind: What it must be, in words.

    Raises:
        TypeError: It is none; a bool isn't either.
        ValueError: It is too small.
    """
    number = _as_int(value)
    if number is None:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(number)}")
    return number


def priority(value: Any) -> int:
    """The option of this name: what a frame can hold. A bool is 0 or 1.

    Raises:
        TypeError: It is no `int`.
        ValueError: It needs more than 64 bits.
    """
    number = int(value) if type(value) is bool else whole("priority", value)
    if not -_FARTHEST <= number < _FARTHEST:
        raise ValueError("priority must be an int of 64 bits, from -2**63 to 2**63 - 1")
    return number


def real(name: str, value: Any, kind: str = "a number") -> float:
    """A `float`, perhaps infinite or not a number.

    Raises:
        TypeError: It can't be made one; a bool isn't.
        ValueError: It is too large.
    """
    try:
        number = _as_float(value)
    except OverflowError:
        raise ValueError(f"{name} must be at most {MOST:.2g}, not {shown(value)}") from None
    if number is None:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    return number


def seconds(name: str, value: Any, *, zero: bool = False, kind: str = "seconds as a number") -> float:
    """Positive seconds, perhaps infinite; with `zero` also none.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or too large, or not a number (NaN).
    """
    if is_a(value, int) and int.__index__(value) > _MOST_SECONDS:  # some can't be made a float
        raise ValueError(f"{name} must be at most {_MOST_SECONDS:,} seconds; leave it out for no limit")
    number = real(name, value, kind)
    if not (number >= 0 if zero else number > 0):  # also refuses NaN
        raise ValueError(f"{name} must {'not be negative' if zero else 'be positive seconds'}, not {shown(value)}")
    return number


def shown(value: Any) -> str:
    """A value in a message: what `repr` gives, if it gives any, and not too much of it."""
    return repr_of(value, _LONGEST)


def _as_int(value: Any) -> int | None:
    kind = type(value)
    if kind is int:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return None
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float) or not hasattr(kind, "__index__"):
        return None
    try:
        return int.__index__(operator.index(value))
    except Exception:  # noqa: BLE001 - what it raises says that it is none
        return None


def _as_float(value: Any) -> float | None:
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return None
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, int):
        return float(int.__index__(value))
    if not hasattr(kind, "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:
        raise
    except Exception:  # noqa: BLE001 - the same
        return None
