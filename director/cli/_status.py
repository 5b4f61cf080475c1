"""Exit statuses, and the error for status 2."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from director._untrusted.numbers import FARTHEST, number_in

if TYPE_CHECKING:
    from collections.abc import Callable

DONE: Final = 0
FAILED: Final = 1  # some items failed
USAGE: Final = 2
HALTED: Final = 3  # by --halt
REFUSED: Final = 4  # to go on with an earlier run, or to write over its results
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
READER_GONE: Final = 141  # 128 + SIGPIPE: `director run ... | head` is not a failure
TERMINATED: Final = 143  # 128 + SIGTERM


class UsageError(Exception):
    """The arguments are wrong; nothing ran."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    status = USAGE


class OutputError(Exception):
    """The standard output can't be written, as on a full disk.

    Args:
        error: Why.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output can't be written: {error.strerror}")


class Refusal(UsageError):
    """The results of an earlier run are there, and the arguments don't fit them; nothing ran."""

    status = REFUSED


_LONGEST = 60  # characters of an argument in a message


def whole_number(least: int, most: int = FARTHEST - 1) -> Callable[[str], int]:
    """A parser of whole numbers within these limits, for `argparse`."""

    def parse(text: str) -> int:
        number = number_in(text) if text.isascii() and text.isdecimal() else -1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is no whole number from {least} to {most}")
        return number

    return parse


def number_of(what: str, least: float, most: float) -> Callable[[str], float]:
    """A parser of numbers within these limits, for `argparse`; `what` names the quantity."""

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
"""Parses seconds between two updates."""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
