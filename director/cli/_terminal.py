"""What the standard error is, and what to do about it."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TextIO


def on_terminal(stream: TextIO) -> bool:
    """Whether someone looks at `stream` through a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@cache
def hint_at_rich() -> None:
    """Say, once, how to get the live view that this terminal could show."""
    print("(for a live view: pip install 'gpu-director[cli]')", file=sys.stderr)
