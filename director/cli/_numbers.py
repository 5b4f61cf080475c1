"""Numbers that a user types."""

from __future__ import annotations

import argparse


def parse_seconds(text: str) -> float:
    """Seconds between two looks, from 0.1 to 3600.

    Raises:
        ArgumentTypeError: They are not.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 3600")
    return seconds
