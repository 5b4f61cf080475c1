"""Jobs that are asked for by an id: looked up, cancelled, kept for a while, and seen by their tenant alone."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from harness.gates import Gate, outcome, rested, turns
from harness.site import client_of
from starlette.testclient import TestClient

from director import Director, QueueFull, report
from director.asgi import JobStore
from director.fastapi import install, job_routes, lifespan

if TYPE_CHECKING:
    from director.testing import TestClock


def fail(_: object) -> None:
    raise ValueError("a secret of the user's")


async def ended(*jobs: Any) -> None:
    await asyncio.gather(*(outcome(stored.job) for stored in jobs))
    await turns()


async def test_from_submission_to_result(gate: Gate) -> None:
    def work(device: object) -> int:
        report(0.5)
        gate(device)
        return 42

    async with Director("simulated:1") as director:
        jobs = JobStore(director)
        stored, waits = jobs.submit(work), jobs.submit(lambda _: 7)
        await gate.begun()
        assert jobs.get(stored.id) is stored
        assert stored.status() == {"id": stored.id, "state": "running", "progress": 0.5}
        assert waits.status() == {"id": waits.id, "state": "queued", "progress": None}
        gate.open()
        await ended(stored, waits)
        assert stored.status() == {"id": stored.id, "state": "succeeded", "progress": 0.5, "result": 42}


async def test_a_failure_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("simulated:1") as director:
        jobs = JobStore(director)
        failed = jobs.submit(fail)
        await ended(failed)
        told = failed.status()
    assert told["state"] == "failed"
    assert (told["problem"]["status"], told["problem"]["kind"]) == (500, "job-failed")
    assert "secret" not in str(told)
    assert f"the job with the id {failed.id} failed" in caplog.text
    assert "a secret of the user's" in caplog.text


async def test_a_timeout_is_told_as_to_a_request(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", clock=clock) as director:
        late = JobStore(director, clock=clock).submit(gate, timeout=1)
        await gate.begun()
        clock.advance(1)
        await ended(late)
        assert (late.status()["problem"]["status"], late.status()["problem"]["kind"]) == (504, "timeout")
        gate.open()


async def test_one_is_cancelled_while_it_waits_and_while_it_runs(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        jobs = JobStore(director)
        runs, waits = jobs.submit(gate), jobs.submit(gate)
        await gate.begun()
        for stored in (waits, runs):
            assert jobs.discard(stored.id)
            await ended(stored)
            assert stored.status() == {"id": stored.id, "state": "cancelled", "progress": None}
            assert jobs.get(stored.id) is stored, "it is kept, to tell what became of it"
            assert jobs.discard(stored.id)
            assert jobs.get(stored.id) is None
            assert not jobs.discard(stored.id)
        gate.open()
        await rested(director)


async def test_jobs_are_kept_for_an_hour_after_their_end_without_anybody_asking(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", clock=clock) as director:
        jobs = JobStore(director, clock=clock)
        first = jobs.submit(lambda _: 1)
        await ended(first)
        clock.advance(1800)
        second, long = jobs.submit(lambda _: 2), jobs.submit(gate)
        await ended(second)
        clock.advance(1799)
        assert len(jobs) == 3
        clock.advance(1)
        assert (jobs.get(first.id), len(jobs)) == (None, 2)
        clock.advance(1800)
        assert (jobs.get(second.id), len(jobs)) == (None, 1)
        clock.advance(86_400)
        assert jobs.get(long.id) is long, "it runs"
        gate.open()
        await ended(long)
        clock.advance(3600)
        assert len(jobs) == 0


async def test_a_flood_of_one_tenant_takes_nothing_from_the_others() -> None:
    async with Director("simulated:1", max_queue=None) as director:
        jobs = JobStore(director, most=20)
        mine = [jobs.submit(lambda _: None, tenant="alice") for _ in range(3)]
        await ended(*mine)
        flood = [jobs.submit(lambda _: None, tenant="mallory") for _ in range(200)]
        await ended(*flood)
        assert len(jobs) == 20
        assert all(jobs.get(stored.id, "alice") is stored for stored in mine)
        assert [stored for stored in flood if jobs.get(stored.id, "mallory")] == flood[-17:], "the latest are kept"


async def test_a_job_is_there_for_its_tenant_alone() -> None:
    async with Director("simulated:1") as director:
        jobs = JobStore(director)
        stored = jobs.submit(lambda _: "private", tenant="alice")
        await ended(stored)
        for stranger in ("bob", None, "", "Alice"):
            assert jobs.get(stored.id, stranger) is None
            assert not jobs.discard(stored.id, stranger)
        assert jobs.get(stored.id, "alice") is stored


async def test_a_refused_job_is_not_kept(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=0) as director:
        jobs = JobStore(director)
        jobs.submit(gate)
        await gate.begun()
        with pytest.raises(QueueFull):
            jobs.submit(gate)
        assert len(jobs) == 1
        gate.open()


async def test_a_close_of_the_director_is_told(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        jobs = JobStore(director)
        runs, waits = jobs.submit(gate), jobs.submit(gate)
        await gate.begun()
        gate.open()
        await director.close()
    await turns()
    assert runs.status()["state"] == waits.status()["state"] == "succeeded"


def test_ids_can_not_be_guessed() -> None:
    ids: set[str] = set()

    async def main() -> None:
        async with Director("simulated:1", max_queue=None) as director:
            jobs = JobStore(director)
            ids.update(jobs.submit(lambda _: None).id for _ in range(100))

    asyncio.run(main())
    assert len(ids) == 100
    assert {len(id) for id in ids} == {22}, "128 random bits"


@pytest.mark.parametrize(("option", "value"), [("keep", -1), ("keep", float("nan")), ("most", 0)])
def test_options_that_make_no_sense(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        JobStore(Director("simulated:1"), **{option: value})


# ---- in FastAPI


def user(authorization: Annotated[str, Header()]) -> str:
    return authorization.removeprefix("Bearer ")


def app_of(director: Director, call: Any, **settings: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(director))
    install(app, director)
    jobs = JobStore(director, **settings)
    app.include_router(job_routes(jobs, tenant=user), prefix="/jobs")

    @app.post("/transcriptions", status_code=202)
    async def transcribe(who: str = Depends(user)) -> dict[str, Any]:
        return jobs.submit(call, tenant=who).status()

    return app


ALICE, BOB = {"authorization": "Bearer alice"}, {"authorization": "Bearer bob"}


async def test_the_routes(clock: TestClock, gate: Gate) -> None:
    app = app_of(Director("simulated:1", clock=clock, max_queue=1), gate, clock=clock)
    async with client_of(app) as client:
        begun = await client.post("/transcriptions", headers=ALICE)
        path = f"/jobs/{begun.json()['id']}"
        await gate.begun()
        told = await client.get(path, headers=ALICE)
        assert (told.status_code, told.json()["state"], told.headers["retry-after"]) == (200, "running", "1")
        for stranger in (await client.get(path, headers=BOB), await client.delete(path, headers=BOB)):
            assert (stranger.status_code, stranger.json()["kind"]) == (404, "no-such-job")
        assert (await client.get(path)).status_code == 422, "the dependency is asked"
        waits = (await client.post("/transcriptions", headers=BOB)).json()
        refused = await client.post("/transcriptions", headers=BOB)
        assert (refused.status_code, refused.json()["kind"]) == (503, "queue-full")
        assert (await client.delete(f"/jobs/{waits['id']}", headers=BOB)).status_code == 204
        assert (await client.get(f"/jobs/{waits['id']}", headers=BOB)).json()["state"] == "cancelled"
        gate.open()
        while (told := await client.get(path, headers=ALICE)).json()["state"] != "succeeded":  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert "retry-after" not in told.headers
        assert told.headers["cache-control"] == "no-store"
        clock.advance(3600)
        assert (await client.get(path, headers=ALICE)).status_code == 404


def test_by_the_test_client() -> None:
    app = app_of(Director("simulated:1"), lambda device: {"text": device.label})
    with TestClient(app) as client:
        begun = client.post("/transcriptions", headers=ALICE)
        assert begun.status_code == 202
        path = f"/jobs/{begun.json()['id']}"
        while (told := client.get(path, headers=ALICE).json())["state"] != "succeeded":
            time.sleep(0.001)
        assert told["result"] == {"text": "simulated:0"}
        assert client.delete(path, headers=ALICE).status_code == 204
        assert client.get(path, headers=ALICE).status_code == 404
