"""What `current_job()` gives in a server process is what it gives in the application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness import current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from director import Director

pytestmark = pytest.mark.programs


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_facts_of_a_job_of_a_server(make: Callable[..., Awaitable[Director]], executor: str) -> None:
    director = await make(executor=executor)

    job = director.submit(current.facts, priority=3, tenant=("acme", 7), name="asking")
    told: dict[str, Any] = await job

    assert (told["tenant"], told["priority"], told["name"], told["attempts"]) == (("acme", 7), 3, "asking", 1)
    assert told["progress"] == (None, {"done": 1}, {"done": 1})
    assert told["refused"] == ["RuntimeError", "InvalidStateError", "InvalidStateError"]
    assert job.progress == {"done": 1}
    batch = director.function(current.tenants, max_batch_size=4, tenant="acme")
    assert await asyncio.gather(*map(batch, range(6))) == ["acme"] * 6
    assert [told async for told in director.stream(current.stream, 3, tenant="acme")] == ["acme"] * 3
    executor_face = director.as_executor(tenant="acme")
    assert await asyncio.wrap_future(executor_face.submit(current.tenant)) == "acme"
