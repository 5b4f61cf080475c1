"""Whether the service lives, and whether it should get requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.gates import Gate, until

from asgi.wire import Exchange
from director import Director, DirectorState, Health, Model
from director.asgi import HealthEndpoints

if TYPE_CHECKING:
    import pytest

detector = Model(lambda device: "replica", name="detector")


async def below(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"below"})


async def ask(health: HealthEndpoints, path: str, **more: Any) -> Exchange:
    return await Exchange(path=path, **more).through(health)


async def ready(health: HealthEndpoints) -> tuple[int, list[str]]:
    exchange = await ask(health, "/readyz")
    assert exchange.answered["cache-control"] == "no-store"
    content = exchange.json()
    assert content["ready"] is (exchange.status == 200)
    return exchange.status, content["because"]


async def test_it_is_ready_while_the_director_is_open(gate: Gate) -> None:
    director = Director("simulated:1")
    health = HealthEndpoints(director=director)
    assert await ready(health) == (503, ["the Director is new"])
    async with director:
        assert await ready(health) == (200, [])
        director.submit(gate)
        await gate.begun()
        draining = asyncio.create_task(director.drain())
        await until(lambda: director.state is DirectorState.DRAINING)
        assert await ready(health) == (503, ["the Director is draining"])
        gate.open()
        await draining
    assert await ready(health) == (503, ["the Director is closed"])


async def test_it_is_ready_when_the_models_are_loaded() -> None:
    async with Director("simulated:2") as director:
        health = HealthEndpoints(director=director, models=[detector])
        assert await ready(health) == (503, ["detector is not loaded"])
        await director.load(detector)
        assert await ready(health) == (200, [])


async def test_without_a_healthy_device_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Director("simulated:1") as director:
        stats = director.stats()
        ill = replace(stats, devices=(replace(stats.devices[0], health=Health.QUARANTINED),))
        monkeypatch.setattr(Director, "stats", lambda _director: ill)
        monkeypatch.setattr(Director, "healthy", False)
        assert await ready(HealthEndpoints(director=director)) == (503, ["no device is healthy"])


async def test_it_is_not_ready_while_every_slot_is_held_by_a_call_whose_job_has_ended(gate: Gate) -> None:
    async with Director("simulated:2") as director:
        health = HealthEndpoints(director=director)
        jobs = [director.submit(gate) for _ in range(2)]
        await gate.begun(2)
        jobs[0].cancel()
        assert await ready(health) == (200, [])  # the other may soon be free
        jobs[1].cancel()
        why = "2 of 2 slots are held by calls whose jobs have ended (cancelled, or out of time)"
        assert await ready(health) == (503, [why])
        assert (await ask(health, "/livez")).status == 200
        gate.open()
        await until(lambda: director.healthy)
        assert await ready(health) == (200, [])


async def test_it_lives_unless_the_director_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    director = Director("simulated:1")
    health = HealthEndpoints(director=director)
    exchange = await ask(health, "/livez")
    assert (exchange.status, exchange.json()) == (200, {"director": "new"})
    async with director:
        monkeypatch.setattr(director._runtime, "fail", lambda _: None)
        director._runtime.task.cancel()  # type: ignore[union-attr]
        await until(lambda: director.state is DirectorState.FAILED)
        assert (await ask(health, "/livez")).status == 503
        assert await ready(health) == (503, ["the Director is failed"])


async def test_everything_else_goes_to_the_application() -> None:
    health = HealthEndpoints(below, director=Director("simulated:1"))
    assert (await ask(health, "/x")).text == b"below"
    assert (await ask(health, "/livez/x")).text == b"below"
    assert (await ask(health, "/livez", kind="websocket")).text == b"below"


async def test_alone_it_knows_nothing_else() -> None:
    assert (await ask(HealthEndpoints(director=Director("simulated:1")), "/x")).status == 404


async def test_paths_can_be_others_or_none() -> None:
    health = HealthEndpoints(below, director=Director("simulated:1"), live="/alive", ready=None)
    assert (await ask(health, "/alive")).status == 200
    assert (await ask(health, "/livez")).text == b"below"
    assert (await ask(health, "/readyz")).text == b"below"


async def test_it_can_be_mounted() -> None:
    health = HealthEndpoints(director=Director("simulated:1"))
    whole = {"scope": {"root_path": "/gpu"}}
    assert (await ask(health, "/gpu/livez", **whole)).status == 200
    assert (await ask(health, "/livez/", **whole)).status == 200, "Litestar takes its part away and adds a slash"


async def test_only_reading() -> None:
    health = HealthEndpoints(director=Director("simulated:1"))
    refused = await ask(health, "/livez", method="POST")
    assert (refused.status, refused.answered["allow"]) == (405, "GET, HEAD")
    assert (await ask(health, "/livez", method="HEAD")).status == 200


async def test_metrics_are_answered_by_who_has_them() -> None:
    director = Director("simulated:1")
    assert (await ask(HealthEndpoints(director=director, metrics=below), "/metrics")).text == b"below"
    assert (await ask(HealthEndpoints(director=director), "/metrics")).status == 404
