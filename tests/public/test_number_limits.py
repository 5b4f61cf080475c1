"""Numbers that no clock, heap or frame can hold are refused at once, with their limits."""

from __future__ import annotations

from typing import Any

import pytest

from director import Director


class Evil(int):
    def __neg__(self) -> int:
        raise ZeroDivisionError


@pytest.mark.parametrize("name", ["deadline", "timeout", "backoff"])
async def test_seconds_have_a_limit(name: str) -> None:
    async with Director("simulated:1") as director:
        options: dict[str, Any] = {name: 10**400}
        with pytest.raises(ValueError, match=r"at most 1,000,000,000 seconds"):
            director.submit(print, **options)


@pytest.mark.parametrize("priority", [2**63, -(2**63) - 1, 10**400])
async def test_a_priority_has_64_bits(priority: int) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(ValueError, match="64 bits"):
            director.submit(print, priority=priority)


async def test_a_priority_is_taken_as_the_plain_number_that_it_is() -> None:
    async with Director("simulated:1") as director:
        job = director.submit(lambda _device: 1, priority=Evil(3))
        assert await job == 1
        assert type(job.priority) is int
