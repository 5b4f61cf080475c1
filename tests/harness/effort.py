"""How many examples a test of properties tries: all in the session `full`, a part of them otherwise."""

from __future__ import annotations

from hypothesis import settings

FEWEST = 5


def examples(in_full: int) -> int:
    """`in_full` examples, of which the Hypothesis profile takes its percentage: `max_examples` of 100 takes all."""
    return max(min(in_full, FEWEST), in_full * settings.default.max_examples // 100)
