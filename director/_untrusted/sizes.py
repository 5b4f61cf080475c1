"""Amounts of memory as users write them: bytes, or a text such as ``"6GiB"``; of a limit also ``"90%"``."""

from __future__ import annotations

import math
import re
from typing import Any

from director._untrusted.numbers import FARTHEST, shown, whole
from director._untrusted.objects import plain

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", 1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]{0,3})", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,18})?)\s*%", re.ASCII)


def bytes_of(name: str, value: Any, least: int = 0) -> int:
    """Bytes as an `int`, from one, or from a text with a unit: ``"6GiB"``, ``"500 MB"``.

    Args:
        name: Of the option.
        value: What was given.
        least: The limit below.

    Raises:
        TypeError: It is neither.
        ValueError: The text is no size, or it is out of range.
    """
    kind = 'bytes as an int, or a text such as "6GiB"'
    text = plain(value)
    if text is None:
        return whole(name, value, least, kind=kind)
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or (unit := _UNITS.get(found[2])) is None:
        units = "B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB and PiB"
        raise ValueError(f"{name} must be {kind}, not {shown(text)}; units are {units}")
    return whole(name, _product(found[1], unit), least, kind=kind)


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
