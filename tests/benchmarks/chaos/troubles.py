"""What goes wrong in a storm: children are killed or stopped for a moment, the event loop is held up."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress

from benchmarks.chaos.remains import children

KILLS = (0.1, 1.5)  # seconds between two of them: least and most
BLOCKS = (0.0, 0.3)  # between two times at which the loop is held up
LONGEST_BLOCK = 0.04
STOPPED = 0.1  # seconds for which a child is stopped, when it isn't killed
STOPS = 0.1  # of the children that are met


class Troubles:
    """Makes trouble until told to stop.

    Args:
        seed: Of the chances.
    """

    def __init__(self, seed: int) -> None:
        self.is_over = False
        self.made: Counter[str] = Counter()
        self._chance = random.Random(f"{seed}:troubles")
        self._killing = random.Random(f"{seed}:kills")

    async def block(self) -> None:
        """Hold up the loop now and then: with the GIL, or without."""
        while not self.is_over:
            await asyncio.sleep(self._chance.uniform(*BLOCKS))
            seconds = self._chance.random() * LONGEST_BLOCK
            self._chance.choice((time.sleep, _compute))(seconds)
            self.made["times the loop was held up"] += 1

    def kill(self) -> None:
        """On a thread of its own, for the loop is held up: kill a child now and then, or stop it for a moment."""
        while not self.is_over:
            time.sleep(self._killing.uniform(*KILLS))
            found = sorted(children())
            if not found or self.is_over:
                continue
            process = self._killing.choice(found)
            with suppress(ProcessLookupError):
                if self._killing.random() < STOPS:
                    os.kill(process, signal.SIGSTOP)
                    time.sleep(STOPPED)
                    os.kill(process, signal.SIGCONT)
                    self.made["children stopped for a moment"] += 1
                else:
                    os.kill(process, signal.SIGKILL)
                    self.made["children killed"] += 1


def _compute(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(100))
