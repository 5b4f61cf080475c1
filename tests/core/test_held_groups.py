"""Groups that are held for fuller batches, told from outside and from the decision alone."""

from __future__ import annotations

import asyncio
import math

MakeStage = "Callable[..., Awaitable[Stage]]"
PATIENCE = 5.0


# ---- seen from outside


async def test_drain_and_close_let_go_of_what_would_wait_for_ever(make_stage: MakeStage) -> None:
    stage = await make_stage()
    gate = stage.gate()
    job = stage.director.function(gate, max_batch_size=4, max_wait=math.inf).submit("item")
    await stage.quiet()
    assert gate.calls == 0
    draining = asyncio.ensure_future(stage.director.drain())
    await stage.quiet()
    gate.open(["done"])
    await asyncio.wait_for(draining, PATIENCE)
    assert await job == "done"


async def test_an_item_is_not_held_into_its_deadline_while_nothing_is_known_of_its_function(
    make_stage: MakeStage,
) -> None:
    """The slot is free all the time: it must not fail for lack of it."""
    stage = await make_stage()
    gate = stage.gate()
    job = stage.director.function(gate, max_batch_size=4, max_wait=2.0, deadline=1.0).submit("item")
    await stage.quiet()
    gate.open(["done"])
    await stage.advance(0.0)
    assert job.done()
    assert await job == "done"
