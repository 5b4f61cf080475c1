"""When failures end the run: `--halt`, after GNU parallel."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Literal

from director._numbers import number_in


@dataclass(frozen=True, slots=True)
class Halt:
    """The rule.

    Args:
        when: ``"never"``: all items are tried. ``"soon"``: no new item starts, what runs is finished.
            ``"now"``: what runs is left behind.
        failures: How many failed items make it take effect.
    """

    when: Literal["never", "soon", "now"] = "never"
    failures: int = 1

    def reached(self, failed: int) -> bool:
        """Whether `failed` items are enough."""
        return self.when != "never" and failed >= self.failures


def parse_halt(text: str) -> Halt:
    """``never``, ``soon``, ``now``, ``now,fail=3``, or ``3`` for ``soon,fail=3``.

    Raises:
        argparse.ArgumentTypeError: `text` is none of these.
    """
    if text == "never":
        return Halt()
    match = re.fullmatch(r"(?:(?P<when>soon|now)(?:,fail=(?P<count>[1-9][0-9]*))?)|(?P<bare>[1-9][0-9]*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of: never, soon, now, soon,fail=N, now,fail=N, N")
    failures = number_in(match["count"] or match["bare"] or "1")
    return Halt("now" if match["when"] == "now" else "soon", failures)
