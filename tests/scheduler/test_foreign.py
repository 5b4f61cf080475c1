"""More foreign use is believed at once, less after five seconds."""

from __future__ import annotations

import pytest

from director._scheduler.memory.observed import ForeignUse


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(0, 5)], [5]),
        ([(0, 5), (1, 7)], [5, 7]),
        ([(0, 5), (1, 2), (4, 2), (5.9, 2), (6, 2)], [5, 5, 5, 5, 2]),
        ([(0, 5), (1, 2), (3, 4), (6, 1)], [5, 5, 5, 4]),
        ([(0, 5), (1, 2), (3, 5), (6, 2), (10, 2), (11, 2)], [5, 5, 5, 5, 5, 2]),
        ([(0, 5), (1, 2), (6, 2), (7, 0), (12, 0)], [5, 5, 2, 2, 0]),
    ],
)
def test_use_over_time(samples: list[tuple[float, int]], expected: list[int]) -> None:
    use = ForeignUse()
    seen = []
    for now, amount in samples:
        use.note(amount, amount, now)
        seen.append(use.bytes)
    assert seen == expected


def test_what_may_be_ours_neither_raises_nor_lowers_it() -> None:
    use = ForeignUse()
    use.note(5, 5, 0)
    for now in range(1, 20):
        use.note(2, 9, now)
        assert use.bytes == 5
