"""What functions of batches, their keys and their results can do to a Director."""

from __future__ import annotations

import asyncio

import pytest

from director import Director

PATIENCE = 5.0


async def test_a_key_that_looks_hashable_and_is_not_is_refused_before_anything_is_counted() -> None:
    async with Director("simulated:1") as director:
        function = director.function(lambda _, items: items, max_batch_size=4, batch_key=lambda _: (1, [2]))
        with pytest.raises(TypeError, match="batch_key"):
            function.submit("item")
        assert director.stats().queued == 0
        await asyncio.wait_for(director.drain(), PATIENCE)


async def test_a_tenant_that_looks_hashable_and_is_not_is_refused_before_anything_is_counted() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="tenant"):
            director.submit(print, tenant=(1, [2]))
        assert director.stats().queued == 0
        await asyncio.wait_for(director.drain(), PATIENCE)
