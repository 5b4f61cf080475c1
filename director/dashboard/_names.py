"""Names of jobs as they are kept and shown. No state.

A name stands in a frame many times, is kept some ten thousand times, and may be as long as anybody likes.
"""

from __future__ import annotations

LONGEST = 120  # characters


def shown(name: str) -> str:
    """The name, cut if it is very long."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
