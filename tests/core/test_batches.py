"""Batches as the decision forms them, on virtual time: no threads, no loop, and every moment is exact."""

from __future__ import annotations

import pytest

from director import Director
from director._bench.played import Play
from director._core.batch_rule import BatchRule
from director._options import Options
from director.testing import TestClock


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


async def test_the_earliest_look_counts_whoever_asks_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings are called outside of the lock: the thread that wants the later look may be the later one to say so."""
    clock, looks = TestClock(), []
    async with Director("simulated:1", clock=clock) as director:
        crew = director._crew
        assert crew is not None
        monkeypatch.setattr(crew.dispatch, "ripen", lambda: looks.append(clock.time()))
        for moment in (5.0, 3.0, 4.0):
            crew._set_ripening(moment)
        clock.advance(10.0)
    assert looks == [3.0]
