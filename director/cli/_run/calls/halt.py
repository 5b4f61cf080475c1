"""When a run ends before its input does: the grammar of ``--halt``."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Literal

from director._untrusted.numbers import number_in

_GRAMMAR = re.compile(
    r"(?P<when>soon|now)(?:,(?P<cause>fail|success|done)=(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<percent>%)?)?"
    r"|(?P<bare>[1-9][0-9]*)"
)
_FORMS = "never, soon, now, soon,fail=N, now,done=N%, N; the causes are fail, success and done"
_LEAST = 20  # items before a share of what is done means anything


@dataclass(frozen=True, slots=True)
class Halt:
    """When a run is ended.

    Args:
        when: ``"never"``: all items are tried. ``"soon"``: no new item starts, what runs is finished. ``"now"``:
            running items are abandoned.
        cause: What is counted: failures, successes or both.
        number: How many, or how many percent of all items.
        is_percent: Whether `number` is a percentage.
    """

    when: Literal["never", "soon", "now"] = "never"
    cause: Literal["fail", "success", "done"] = "fail"
    number: float = 1
    is_percent: bool = False

    def reached(self, failed: int, succeeded: int, total: int | None = None) -> bool:
        """Whether these counts are enough.

        A percentage is one of `total`. If that is not known, it is one of the items that are done, once there are
        enough of them: 20, or as many as one of them is less than the percentage of.
        """
        if self.when == "never":
            return False
        done = failed + succeeded
        counted = {"fail": failed, "success": succeeded, "done": done}[self.cause]
        if not self.is_percent:
            return counted >= self.number
        if total is None:
            return self.cause != "done" and done >= max(_LEAST, 100 / self.number) and self._share(counted, done)
        return total > 0 and self._share(counted, total)

    def _share(self, counted: int, of: int) -> bool:
        return counted * 100 >= self.number * of


def parse_halt(text: str) -> Halt:
    """``never``, ``soon``, ``now``, ``now,fail=3``, ``soon,fail=2%``, ``soon,done=100``, or ``3`` for ``soon,fail=3``.

    Raises:
        argparse.ArgumentTypeError: `text` is none of these.
    """
    if text == "never":
        return Halt()
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of: {_FORMS}")
    if match["bare"]:
        return Halt("soon", "fail", number_in(match["bare"]))
    when: Literal["soon", "now"] = "now" if match["when"] == "now" else "soon"
    if match["number"] is None:
        return Halt(when)
    is_percent = match["percent"] is not None
    number = float(match["number"]) if is_percent else _whole(match["number"], text)
    if number <= 0 or (is_percent and number > 100):
        raise argparse.ArgumentTypeError(f"{text!r}: the number is above 0, a percentage at most 100")
    cause: Literal["fail", "success", "done"] = match["cause"]  # type: ignore[assignment]  # by the grammar
    return Halt(when, cause, number, is_percent)


def _whole(number: str, text: str) -> int:
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: a number of items is whole")
    return number_in(number)
