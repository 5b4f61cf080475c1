"""Users' numbers as our own: an exact `int` or `float` of the same value, or a refusal that names the limits.

An `int`, a `float`, a subclass of these (such as an enum), and any type registered with `numbers.Number` as a real
number (a `Decimal`, a `Fraction`, a scalar of NumPy) is converted once, on the caller's thread; the user's object is
not used afterwards. A bool is not a number. Whatever the object does, only `TypeError` and `ValueError` are raised.

Also amounts of memory: bytes, or a text such as ``"6GiB"``; of a limit also ``"90%"``.
"""

from __future__ import annotations

import math
import operator
import re
from numbers import Complex, Integral, Number, Real
from typing import Any

from director._untrusted.objects import plain, repr_of

# Smaller numbers fit into a frame, a C integer and the arguments of the standard library.
FARTHEST = 2**63
# About thirty years. Added to a clock, also in milliseconds, it is a time that timers can represent.
MOST_SECONDS = 10**9
MOST_SLOTS = 10_000  # per device; also the most CPU or simulated devices
MOST_COST = 1e30  # per item, so that any sum of costs is finite
_LARGEST = 1.7976931348623157e308
_GIANT = 10**400
_MOST_DIGITS = 40
_LONGEST = 200  # characters of a value in a message


def whole(
    name: str, value: Any, least: int = -FARTHEST, most: int = FARTHEST - 1, kind: str = "an int", hint: str = ""
) -> int:
    """An `int`.

    Args:
        name: Of the option.
        value: What was given.
        least: The limit below.
        most: The limit above.
        kind: What it must be, in words.
        hint: What to do instead, in words, if it is out of range.

    Raises:
        TypeError: It is none; a bool and a float aren't either.
        ValueError: It is out of range.
    """
    number = value if type(value) is int else _plain(value)
    if type(number) is not int:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be at least {_said(least)} and at most {_said(most)}, not {shown(number)}{hint}")
    return number


def priority(value: Any) -> int:
    """The option of this name: what a frame can hold. A bool is 0 or 1.

    Raises:
        TypeError: It is no `int`.
        ValueError: It needs more than 64 bits.
    """
    return int(value) if type(value) is bool else whole("priority", value)


def real(
    name: str, value: Any, least: float = -_LARGEST, most: float = _LARGEST, kind: str = "a number", hint: str = ""
) -> float:
    """A finite `float`, or an `int` that was one.

    Raises:
        TypeError: It can't be made one; a bool isn't.
        ValueError: It is out of range, or not a number (NaN).
    """
    number = value if type(value) is float else _plain(value)
    if number is None:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    if not least <= number <= most:  # also refuses NaN
        raise ValueError(f"{name} must be from {_said(least)} to {_said(most)}, not {shown(number)}{hint}")
    return number


def seconds(
    name: str,
    value: Any,
    *,
    zero: bool = False,
    endless: bool = False,
    kind: str = "seconds as a number",
    hint: str = "",
) -> float:
    """Positive seconds; with `zero` also none, with `endless` also infinite ones.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or too large, or not a number (NaN).
    """
    number = value if type(value) is float else _plain(value)
    if number is None:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    is_enough = number >= 0 if zero else number > 0
    if is_enough and (number <= MOST_SECONDS or (endless and number == math.inf)):
        return number
    limits = f"{'not be negative' if zero else 'be positive seconds'}, and at most {MOST_SECONDS:,} seconds"
    raise ValueError(f"{name} must {limits}, not {shown(number)}{hint}")


def number_in(digits: str) -> int:
    """The number that ASCII digits stand for; for too many digits, a number beyond every limit."""
    return int(digits.lstrip("0")[:_MOST_DIGITS] or "0")


def shown(value: Any) -> str:
    """A value for a message: its `repr`, shortened, or its class if `repr` raises."""
    return repr_of(value, _LONGEST)


def shortened(text: str, most: int = 2 * _LONGEST) -> str:
    """A text, or its beginning and its length if it is long."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _said(limit: float) -> str:
    if limit in (-FARTHEST, FARTHEST - 1):
        return "-2**63" if limit < 0 else "2**63 - 1 (64 bits)"
    return f"{limit:,}" if type(limit) is int and limit <= MOST_SECONDS else f"{limit:g}"


def _plain(value: Any) -> int | float | None:
    """The same number as an exact `int` or `float`; `None` if it is not a number, or too large for both."""
    kind = type(value)
    if kind is bool:
        return None
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    try:
        if issubclass(kind, Integral):
            return int.__index__(operator.index(value))
        if issubclass(kind, Real) or (issubclass(kind, Number) and not issubclass(kind, Complex)):
            return _as_float(value)
    except BaseException:  # noqa: BLE001 - raised by the object or its class, which makes it unusable as a number
        return None
    return None


def _as_float(value: Any) -> float:
    """The nearest `float`; for a finite number larger than all of them, an `int` beyond every limit."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isinf(number) and value != number:
        return _GIANT if number > 0 else -_GIANT
    return number


_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", 1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]{0,3})", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,18})?)\s*%", re.ASCII)


def bytes_of(name: str, value: Any) -> int:
    """Bytes as an `int`, from one, or from a text with a unit: ``"6GiB"``, ``"500 MB"``.

    Raises:
        TypeError: It is neither.
        ValueError: The text is no size, or it is out of range.
    """
    kind = 'bytes as an int, or a text such as "6GiB"'
    text = plain(value)
    if text is None:
        return whole(name, value, 0, kind=kind)
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or (unit := _UNITS.get(found[2])) is None:
        units = "B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB and PiB"
        raise ValueError(f"{name} must be {kind}, not {shown(text)}; units are {units}")
    return whole(name, _product(found[1], unit), 0, kind=kind)


def _product(number: str, unit: int) -> int:
    """Exact where the number is whole, as most are."""
    return int(number) * unit if "." not in number else min(FARTHEST, math.ceil(float(number) * unit))


def share_of(name: str, value: Any) -> float | None:
    """The share of a text such as ``"90%"``, above 0 and at most 1; `None` if it is no percentage.

    Raises:
        ValueError: It is 0 %, or more than 100 %.
    """
    text = plain(value)
    found = None if text is None else _PERCENT.fullmatch(text.strip())
    if found is None:
        return None
    percent = float(found[1])
    if not 0 < percent <= 100:
        raise ValueError(f"{name} must be more than 0% and at most 100%, not {shown(text)}")
    return percent / 100


def size_text(size: float) -> str:
    """Bytes for people: ``"5.4 GiB"``."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or abs(amount) >= 1000 else f"{amount:.3g} {unit}"
