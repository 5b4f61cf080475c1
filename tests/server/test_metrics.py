"""`director.prometheus` of Directors with one server: what each process says, and what may be added up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness import served
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from director import Director, JobState, QueueFull
from director.prometheus import Breakdown, DirectorCollector, Durations
from server.conftest import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]
    Scrape = dict[frozenset[tuple[str, str]], float]

pytestmark = pytest.mark.programs

OWN = ("director_info", "director_state", "director_job_", "director_function_")  # of one process


async def worker(make: Make, number: str, **options: Any) -> tuple[Director, Callable[[], Scrape]]:
    """An application with metrics, and what it answers to a scrape: samples by their labels, `name` among them."""
    durations, breakdown, registry = Durations(), Breakdown(), CollectorRegistry()
    director = await make(hooks=[durations, breakdown], name="web", **options)
    DirectorCollector(director, durations, breakdown=breakdown, registry=registry, worker=number)

    def scrape() -> Scrape:
        families = text_string_to_metric_families(generate_latest(registry).decode())
        return {
            frozenset({"name": sample.name, **sample.labels}.items()): sample.value
            for family in families
            for sample in family.samples
        }

    return director, scrape


def count(scrape: Scrape, name: str, **labels: str) -> float:
    """What Prometheus has as the sum of the series with these labels."""
    wanted = {"name": name, **labels}.items()
    return sum(value for series, value in scrape.items() if wanted <= set(series))


async def test_what_the_server_knows_is_one_series_and_the_rest_has_the_worker(make: Make) -> None:
    """Whichever worker answers, the series of the server are the same; and no sum counts anything twice."""
    (one, scrape_one), (two, scrape_two) = [await worker(make, number) for number in "12"]
    for director, jobs in ((one, 3), (two, 2)):
        for number in range(jobs):
            await director.run(served.add, number, 1)
    await until(lambda: one.stats().succeeded == two.stats().succeeded == 5)

    found = [scrape_one(), scrape_two()]
    for scrape, number in zip(found, "12", strict=True):
        for series in map(dict, scrape):
            assert series["server"] == "s"
            assert series.get("worker") == (number if series["name"].startswith(OWN) else None), series
    both = found[0] | found[1]  # of one target that both answer in turn
    assert count(both, "director_jobs_total", outcome="succeeded") == 5
    assert count(both, "director_device_slots") == 1
    assert count(both, "director_device_jobs_total") == 5
    assert count(both, "director_function_jobs_total", outcome="succeeded") == 5
    assert count(both, "director_function_jobs_total", outcome="succeeded", worker="2") == 2
    assert count(both, "director_job_run_seconds_count") == 5
    assert count(both, "director_state", state="open") == 2
    assert set(found[0]) & set(found[1]) == {series for series in both if "worker" not in dict(series)}


async def test_refusals_of_every_worker_are_in_the_scrape_of_each(make: Make, hold: Callable[[], Holder]) -> None:
    (one, scrape_one), (two, scrape_two) = [await worker(make, number, max_queue=0) for number in "12"]
    holder = hold()
    held = one.submit(served.hold, holder.path)
    await holder.begun()
    await until(lambda: held.state is JobState.RUNNING)
    for director in (one, two, two):
        with pytest.raises(QueueFull):
            director.submit(served.add, 0, 0)

    for scrape in (scrape_one(), scrape_two()):
        assert count(scrape, "director_jobs_total", outcome="rejected") == 3
    await two.close()
    assert count(scrape_one(), "director_jobs_total", outcome="rejected") == 3
    holder.let_go()
    await asyncio.wait_for(held, PATIENCE)


async def test_a_director_without_a_server_in_the_same_scrape_is_as_ever(make: Make) -> None:
    registry = CollectorRegistry()
    collector = DirectorCollector(await make(name="with"), registry=registry, worker="7")
    collector.watch(Director("simulated:1"), name="without")

    text = generate_latest(registry).decode()
    assert 'director_jobs_queued{director="with",server="s"} 0.0' in text
    assert 'director_jobs_queued{director="without",worker="7"} 0.0' in text
    assert 'director_state{director="with",server="s",state="open",worker="7"} 1.0' in text
