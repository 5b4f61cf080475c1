"""What `current_job()` gives is the same in the thread and in the process that makes the call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from harness import current

from director import Director, JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TENANTS: list[Any] = [None, "acme", 7, 2.5, b"key", ("acme", 3), "ü" * 2000]


@pytest.fixture(params=["thread", "process"])
async def director(request: pytest.FixtureRequest) -> AsyncIterator[Director]:
    executor: Literal["thread", "process"] = request.param
    async with Director("cpu", executor=executor, max_queue=None) as director:
        yield director


async def test_every_fact_of_the_contract(director: Director) -> None:
    job = director.submit(current.facts, priority=3, tenant="acme", name="asking")
    told = await job

    assert told["waited"] >= 0
    told["waited"] = job.waited
    assert told == {
        "id": job.id,
        "state": JobState.RUNNING,
        "device": director.devices[0],
        "priority": 3,
        "tenant": "acme",
        "waited": job.waited,
        "ran": None,
        "attempts": 1,
        "name": "asking",
        "done": False,
        "cancelled": False,
        "text": f"<Job {job.id} 'asking' running on cpu:0>",
        "progress": (None, {"done": 1}, {"done": 1}),
        "refused": ["RuntimeError", "InvalidStateError", "InvalidStateError"],
    }
    assert job.progress == {"done": 1}


async def test_each_job_has_its_own_tenant(director: Director) -> None:
    """Also of one that was sent ahead of its turn, with and without arguments, which may be large."""
    arguments: list[Any] = [(), (1, "two"), (b"x" * 40_000,), (bytearray(2_000_000),)]
    asked = [(tenant, given) for given in arguments for tenant in TENANTS] * 3
    told = await asyncio.gather(*(director.run(current.tenant, *given, tenant=tenant) for tenant, given in asked))
    assert told == [tenant for tenant, _ in asked]


async def test_a_tenant_of_a_class_of_the_users(director: Director) -> None:
    assert await director.run(current.tenant, tenant=current.Account(5)) == current.Account(5)


async def test_the_tenant_of_batches_streams_executors_and_functions_that_travel(director: Director) -> None:
    batch = director.function(current.tenants, max_batch_size=4, tenant="acme")
    assert await asyncio.gather(*map(batch, range(6))) == ["acme"] * 6
    assert [told async for told in director.stream(current.stream, 3, tenant="acme")] == ["acme"] * 3
    executor = director.as_executor(tenant="acme")
    assert await asyncio.wrap_future(executor.submit(current.tenant)) == "acme"
    assert await director.run(lambda _device: current.tenant(), tenant="acme") == "acme"
    assert await director.run(current.tenant) is None


async def test_a_tenant_that_is_not_sent_fails_no_call() -> None:
    async with Director("cpu", executor="process") as director:
        told = await director.run(current.tenant, tenant=current.Unsendable())
        assert told.startswith("PicklingError: the tenant of tenant can't be sent to another process: TypeError")
        told = await director.run(current.tenant, tenant="x" * 5000)
        assert (
            told == "PicklingError: the tenant of tenant is not sent to another process: it takes more than 4096 bytes"
        )
        assert await director.run(current.tenant, 1, tenant="acme") == "acme"
