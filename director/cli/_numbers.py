"""Numbers that a user types."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from director._numbers import FARTHEST, number_in

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 60  # characters of what was typed, in a message


def whole_number(least: int, most: int = FARTHEST - 1) -> Callable[[str], int]:
    """What reads a whole number in these limits, for `argparse`."""

    def parse(text: str) -> int:
        number = number_in(text) if text.isascii() and text.isdecimal() else -1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is no whole number from {least} to {most}")
        return number

    return parse


def number_of(what: str, least: float, most: float) -> Callable[[str], float]:
    """What reads a number of something in these limits, for `argparse`."""

    def parse(text: str) -> float:
        try:
            number = float(text) if text.isascii() else float("nan")
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is no {what} from {least:g} to {most:g}")
        return number

    return parse


parse_seconds = number_of("number of seconds", 0.1, 3600)
"""Seconds between two looks."""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
