"""A call on its way to another process goes only where the table says, and the page of the wire shows that table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from director._executors.remote.calls import LEGAL_MOVES, CallState, PendingCall

PAGE = Path(__file__).parents[3] / "docs/explanation/wire.md"


@pytest.mark.parametrize("before", CallState)
@pytest.mark.parametrize("after", CallState)
def test_a_call_moves_along_the_table(before: CallState, after: CallState) -> None:
    call = PendingCall([], None, ())
    call.state = before
    if after in LEGAL_MOVES[before]:
        call.move(after)
        assert call.state is after
    else:
        with pytest.raises(RuntimeError, match=f"from {before.name} to {after.name}"):
            call.move(after)
        assert call.state is before


def test_the_page_shows_the_same_table() -> None:
    names = "|".join(CallState.__members__)
    shown = {
        (CallState[before], CallState[after])
        for row in re.findall(r"^\| (`.*?) \| (`.*?`) \|", PAGE.read_text(), re.M)
        for before in re.findall(names, row[0])
        for after in re.findall(names, row[1])
    }
    assert shown == {(before, after) for before, afters in LEGAL_MOVES.items() for after in afters}
