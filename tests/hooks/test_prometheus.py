"""`director.prometheus`: what a scrape says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, outcome, rested
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from director import Director, Model, QueueFull
from director.hooks import JobRecorder
from director.prometheus import BUCKETS, OTHER, Breakdown, DirectorCollector, Durations

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates import Gate

    from director.testing import TestClock


def fail(*_args: Any) -> None:
    raise ZeroDivisionError


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names, as Prometheus reads them."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_scrape(clock: TestClock, gate: Gate) -> None:
    registry = CollectorRegistry()
    director = Director("simulated:1", name="mine", clock=clock, max_queue=1, slots=2)
    DirectorCollector(director, registry=registry)
    async with director:
        detector = Model(lambda device: device, name="detector")
        await director.run(lambda _: clock.advance(3), model=detector)
        await outcome(director.run(fail))
        await rested(director)
        for _ in range(3):
            director.submit(gate)
        await gate.begun(2)
        with pytest.raises(QueueFull):
            director.submit(gate)
        seen = samples(registry)
        device = ("simulated:0", "mine", "simulated")
        assert seen["director_jobs_queued", "mine"] == 1
        assert seen["director_jobs_running", "mine"] == 2
        assert {key[2]: value for key, value in seen.items() if key[0] == "director_jobs_total"} == {
            "succeeded": 1,
            "failed": 1,
            "cancelled": 0,
            "rejected": 1,
        }
        assert seen["director_device_slots", *device, "SIM-0"] == 2
        assert seen["director_device_busy_slots", *device, "SIM-0"] == 2
        assert seen["director_device_abandoned_slots", *device, "SIM-0"] == 0
        assert seen["director_device_elsewhere_slots", *device, "SIM-0"] == 0
        assert seen["director_device_jobs_total", *device, "SIM-0"] == 2
        assert seen["director_device_busy_seconds_total", *device, "SIM-0"] == 3
        assert seen["director_model_resident", *device, "detector", "SIM-0"] == 1
        assert ("director_device_memory_budget_bytes", *device, "SIM-0") not in seen
        taken = {key[1]: value for key, value in seen.items() if key[0] == "director_device_memory_reserved_bytes"}
        assert taken == dict.fromkeys(("replicas", "loading", "calls", "context", "leaked", "foreign"), 0)
        health = ("simulated:0", "mine")
        assert seen["director_device_health", *health, "healthy", "simulated", "SIM-0"] == 1
        assert seen["director_device_health", *health, "quarantined", "simulated", "SIM-0"] == 0
        assert seen["director_state", "mine", "open"] == 1
        assert seen["director_state", "mine", "closed"] == 0
        gate.open()
    assert samples(registry)["director_state", "mine", "closed"] == 1


def test_before_the_start() -> None:
    registry = CollectorRegistry()
    DirectorCollector(Director("simulated:1"), registry=registry)
    seen = samples(registry)
    assert seen["director_jobs_queued", ""] == 0
    assert seen["director_state", "", "new"] == 1
    assert not [key for key in seen if key[0].startswith("director_device")]


async def test_both_formats_are_valid() -> None:
    registry, durations = CollectorRegistry(), Durations()
    async with Director("simulated:2", hooks=[durations]) as director:
        collector = DirectorCollector(director, durations, registry=registry)
        collector.watch(Director("simulated:1"), name="other")
        await director.run(lambda _: None)
        text = generate_latest(registry).decode()
        declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(declared) == len(set(declared)), "a metric is declared twice"
        assert openmetrics.generate_latest(registry).decode().endswith("# EOF\n")
        with pytest.raises(ValueError, match="read already"):
            collector.watch(director)


async def test_batches() -> None:
    registry = CollectorRegistry()
    async with Director("simulated:1") as director:
        DirectorCollector(director, registry=registry)
        function = director.function(lambda _, items: items, max_batch_size=4, name="many")
        await asyncio.gather(*(function(n) for n in range(8)))
        await rested(director)
        seen = samples(registry)
    assert seen["director_batch_items_total", "simulated:0", "", "many"] >= 4
    assert seen["director_batches_total", "simulated:0", "", "many"] >= 1


async def test_a_name_that_is_no_text_spoils_no_scrape() -> None:
    """Half a character, as of a file name that is no UTF-8: one label would take all metrics of the process along."""
    registry = CollectorRegistry()
    async with Director("simulated:1", name="\udcff") as director:
        DirectorCollector(director, registry=registry)
        await director.function(lambda _, items: items, max_batch_size=4, name="read \udcff")(1)
        await director.run(lambda _: None, model=Model(lambda device: device, name="\udcff"))
        await rested(director)
        text = generate_latest(registry).decode()
    assert 'director_jobs_queued{director="\\\\udcff"} 0.0' in text
    assert 'function="read \\\\udcff"' in text
    assert 'model="\\\\udcff"' in text


async def test_jobs_of_very_many_names_make_no_more_metrics() -> None:
    registry = CollectorRegistry()
    async with Director("simulated:1", max_queue=None) as director:
        DirectorCollector(director, registry=registry)
        await director.run(str)
        before = set(samples(registry))
        await asyncio.gather(*(director.submit(str, name=f"job {n}", tenant=f"tenant {n}") for n in range(200)))
        assert set(samples(registry)) == before


async def test_histograms_of_waits_and_runs(clock: TestClock, gate: Gate) -> None:
    registry, durations = CollectorRegistry(), Durations([1, 5])
    assert isinstance(durations, JobRecorder)
    async with Director("simulated:1", hooks=[durations], clock=clock) as director:
        DirectorCollector(director, durations, registry=registry)
        held = director.submit(gate)
        await gate.begun()
        waiting, cancelled = director.submit(gate), director.submit(gate)
        clock.advance(3)
        cancelled.cancel()
        gate.open()
        await asyncio.gather(held, waiting)
        await outcome(director.run(lambda _: clock.advance(9)))
        seen = samples(registry)
    waits, runs = "director_job_wait_seconds", "director_job_run_seconds"
    assert [seen[f"{waits}_bucket", "", bound] for bound in ("1.0", "5.0", "+Inf")] == [2, 3, 3]
    assert [seen[f"{runs}_bucket", "", bound] for bound in ("1.0", "5.0", "+Inf")] == [1, 2, 3]
    assert (seen[f"{waits}_sum", ""], seen[f"{waits}_count", ""]) == (3, 3)
    assert (seen[f"{runs}_sum", ""], seen[f"{runs}_count", ""]) == (12, 3)


@pytest.mark.parametrize("buckets", [[], [2, 1], [1, 1]])
def test_buckets_must_ascend(buckets: list[float]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Durations(buckets)
    assert list(BUCKETS) == sorted(BUCKETS)


async def test_a_scrape_by_http_from_another_thread() -> None:
    registry = CollectorRegistry()
    async with Director("simulated:1", name="mine") as director:
        DirectorCollector(director, registry=registry)
        server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        try:
            await director.run(lambda _: None)
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            body = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=PATIENCE).read().decode())
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    assert 'director_jobs_total{director="mine",outcome="succeeded"} 1.0' in body


async def test_scrapes_while_jobs_run_disturb_nobody() -> None:
    registry, ended = CollectorRegistry(), threading.Event()
    seen: list[float] = []

    def scrape() -> None:
        while not ended.is_set():
            seen.append(samples(registry)["director_jobs_total", "", "succeeded"])

    async with Director("simulated:2", max_queue=None) as director:
        DirectorCollector(director, registry=registry)
        thread = threading.Thread(target=scrape, daemon=True)
        thread.start()
        await asyncio.gather(*(director.submit(lambda _: None) for _ in range(3_000)))
        ended.set()
        await asyncio.to_thread(thread.join)
    assert seen == sorted(seen)


async def test_the_collector_costs_a_job_nothing() -> None:
    """It is no hook, so the core knows nothing of it."""
    async with Director("simulated:1") as director:
        DirectorCollector(director, registry=None)
        assert director._runtime is not None
        assert not director._runtime.instrumentation.recording


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "director.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'gpu-director\[prometheus\]'"):
        import director.prometheus  # noqa: F401


# ---- by function and tenant


async def test_jobs_by_function_and_tenant(clock: TestClock, gate: Gate) -> None:
    registry, breakdown = CollectorRegistry(), Breakdown()
    async with Director("simulated:1", name="mine", clock=clock, hooks=[breakdown]) as director:
        DirectorCollector(director, breakdown=breakdown, registry=registry)
        await director.run(lambda _: clock.advance(3), name="detect", tenant="alice")
        await director.run(lambda _: clock.advance(1), name="detect")
        await outcome(director.run(fail, name="decode", tenant="alice"))
        left = director.submit(gate, name="decode", tenant="bob", timeout=2)
        await gate.begun()
        clock.advance(2)
        await outcome(left)
        clock.advance(1)
        gate.open()
        await rested(director)
        await director.run(lambda _: None, name="detect")
        seen = samples(registry)
    jobs = {key[2:]: value for key, value in seen.items() if key[0] == "director_function_jobs_total" and value}
    assert jobs == {("detect", "succeeded"): 3, ("decode", "failed"): 2}
    jobs = {key[2:]: value for key, value in seen.items() if key[0] == "director_tenant_jobs_total" and value}
    assert jobs == {("succeeded", "alice"): 1, ("failed", "alice"): 1, ("failed", "bob"): 1}
    assert seen["director_function_run_seconds_total", "mine", "detect"] == 4
    assert seen["director_function_run_seconds_total", "mine", "decode"] == 3, "the call went on after its job"
    assert seen["director_tenant_run_seconds_total", "mine", "bob"] == 3


async def test_names_beyond_the_bound_are_counted_together() -> None:
    registry, breakdown = CollectorRegistry(), Breakdown(functions=3, tenants=2)
    async with Director("simulated:2", hooks=[breakdown], max_queue=None) as director:
        DirectorCollector(director, breakdown=breakdown, registry=registry)
        await asyncio.gather(
            *(director.submit(lambda _: None, name=f"function {n % 10}", tenant=f"user {n}") for n in range(200))
        )
        seen = samples(registry)
    for metric, most in (("director_function_jobs_total", 3), ("director_tenant_jobs_total", 2)):
        jobs = {key: value for key, value in seen.items() if key[0] == metric and "succeeded" in key}
        assert len(jobs) == most + 1
        assert sum(jobs.values()) == 200
        assert sum(OTHER in key for key in jobs) == 1


async def test_a_bound_of_nothing_counts_nothing() -> None:
    breakdown = Breakdown(functions=0, tenants=0)
    async with Director("simulated:1", hooks=[breakdown]) as director:
        await director.run(lambda _: None, tenant="alice")
    assert breakdown.functions() == breakdown.tenants() == {}
    with pytest.raises(ValueError, match="functions"):
        Breakdown(functions=-1)
    with pytest.raises(TypeError, match="tenants"):
        Breakdown(tenants="many")  # type: ignore[arg-type]


# ---- several worker processes


def test_one_process_has_no_label_worker_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def scraped(**settings: Any) -> str:
        registry = CollectorRegistry()
        DirectorCollector(Director("simulated:1", name="mine"), registry=registry, **settings)
        return generate_latest(registry).decode()

    assert 'director_jobs_queued{director="mine"} 0.0' in scraped()
    assert 'director_jobs_queued{director="mine",worker="3"} 0.0' in scraped(worker="3")
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0.0")
    assert f'director_jobs_queued{{director="mine",worker="{os.getpid()}"}} 0.0' in scraped()
    assert 'director_jobs_queued{director="mine"} 0.0' in scraped(worker="")


WORKERS = '''
"""Each worker of the server prints what it would answer to a scrape, once a job has run."""
import contextlib, os
from prometheus_client import CollectorRegistry, generate_latest
from director import Director
from director.asgi import lifespan
from director.prometheus import DirectorCollector
from fastapi import FastAPI

director = Director("simulated:1", name="mine")
registry = CollectorRegistry()
DirectorCollector(director, registry=registry)

@contextlib.asynccontextmanager
async def tell(app):
    await director.run(str)
    (line,) = (line for line in generate_latest(registry).decode().splitlines() if "succeeded" in line)
    os.write(1, f"{os.getpid()} {line}\\n".encode())
    yield

app = FastAPI(lifespan=lifespan(director, tell))
'''


@pytest.mark.slow
@pytest.mark.programs
def test_two_workers_of_uvicorn_are_two_series(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    command = [sys.executable, "-m", "uvicorn", "workers:app", "--workers", "2", "--port", "0", "--log-level", "error"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            told = dict(server.stdout.readline().decode().strip().split(" ", 1) for _ in range(2))
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert len(told) == 2
    for worker, line in told.items():
        assert line == f'director_jobs_total{{director="mine",outcome="succeeded",worker="{worker}"}} 1.0'
