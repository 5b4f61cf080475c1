"""Batches as the decision forms them, on virtual time: no threads, no loop, and every moment is exact."""

from __future__ import annotations

from typing import Any

from director._bench.played import Play
from director._core.batch_rule import BatchRule
from director._options import Options


def test_a_group_that_two_looks_are_due_for_is_let_go_once() -> None:
    """The timer may come late, and then the look that was planned first and an earlier one are both due."""
    play = Play([1], lambda jobs, _: 1.0)
    rule = BatchRule("f", max_size=4, max_wait=1.0)
    play.submit(Options())
    patient = play.submit(Options(batch=rule))  # to be looked at in 1 s
    pressed = play.submit(Options(batch=rule, deadline=0.5))  # in half a second
    play.now = 2.0
    play.dispatch.ripen()
    assert play.dispatch.waiting() == 2
    play.run()
    assert play.calls[1:] == [[patient]]
    assert play.late == [pressed]
    assert play.dispatch.waiting() == 0
