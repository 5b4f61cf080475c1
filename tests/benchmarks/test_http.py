"""The arithmetic of the comparison with other servers, and a real run of it, as short as can be."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys

import pytest

from benchmarks.http import arrivals, model
from benchmarks.http.client import ANSWER, REQUEST, closed_loop, serve_order
from benchmarks.http.contender import CONTENDERS, Contender, environment, running
from benchmarks.http.sheet import SERVED, Load, Row, goals, table

pytestmark = pytest.mark.slow

OURS = [each for each in CONTENDERS if each.needs == "fastapi"]


def test_the_peak_is_that_of_full_batches() -> None:
    assert model.peak(1) == pytest.approx(16 / 0.0082)
    assert model.peak(2) == 2 * model.peak(1)


def test_arrivals_have_their_rate_and_repeat() -> None:
    moments = arrivals.poisson(1000, 5, seed=1)
    assert moments == arrivals.poisson(1000, 5, seed=1) != arrivals.poisson(1000, 5, seed=2)
    assert len(moments) == pytest.approx(5000, rel=0.1)
    assert moments == sorted(moments)


def test_the_ideal_takes_what_has_come() -> None:
    alone, pair = model.seconds(1), model.seconds(2)
    assert arrivals.ideal([0.0], 1) == pytest.approx([alone])
    # The second and third come while the first is served, and are served together.
    assert arrivals.ideal([0.0, 0.001, 0.002], 1) == pytest.approx([alone, alone + pair - 0.001, alone + pair - 0.002])
    # With two copies the second need not wait; the third has to, for the first copy.
    assert arrivals.ideal([0.0, 0.001, 0.002], 2) == pytest.approx([alone, alone, 2 * alone - 0.002])


def test_the_ideal_has_a_largest_batch() -> None:
    latencies = arrivals.ideal([0.0] * 17, 1)
    assert latencies[:16] == pytest.approx([model.seconds(16)] * 16)
    assert latencies[16] == pytest.approx(model.seconds(16) + model.seconds(1))


def test_quantiles() -> None:
    assert arrivals.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert arrivals.quantile([float(n) for n in range(100)], 0.99) == 99.0
    assert arrivals.quantile([], 0.99) == math.inf


def test_threads_alone_stay_below_the_peak() -> None:
    assert 0 < model.alone(2, 0.2) / model.peak(2) <= 1.1, "a call takes its time, and both threads are at it"


def row(name: str, closed: float, p99: float, answered: float = 1.0) -> Row:
    return Row(name, [closed], [0.0], [0.25], [0.0003], {0.8: [Load(0.01, p99, 0.01, answered)]})


def test_the_table_and_the_goals() -> None:
    rows = [row("director", 980, 0.02), row("mosec", 900, 0.03), row("LitServe", 500, 9.0, 0.5)]
    text = table(rows, 1000)
    assert "| director | 980 (0.98) | 300, 25% | 0.0% | 10.0 / 20.0 (2.00) |" in text
    assert "**overload** 10.0 / 9,000.0" in text
    assert [line.split()[0] for line in goals(rows, 1000)] == ["reached"] * 4
    slow = [row("director", 700, 0.04), *rows[1:]]
    assert [line.split()[0] for line in goals(slow, 1000)] == ["MISSED", "reached", "MISSED", "MISSED"]
    assert len(goals([*rows, row("director otherwise", 700, 0.04)], 1000)) == 4, "it has no goals against itself"


def test_the_goals_of_several_processes_before_one_server() -> None:
    rivals = [row("director", 700, 0.02), row("mosec", 800, 0.03)]
    said = [line for line in goals([*rivals, row(SERVED, 810, 0.03)], 1000) if SERVED in line]
    assert [line.split()[0] for line in said] == ["reached", "reached", "reached"]
    said = [line for line in goals([*rivals, row(SERVED, 790, 0.031)], 1000) if SERVED in line]
    assert [line.split()[0] for line in said] == ["MISSED", "MISSED", "MISSED"]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server in ten lines; its answers come in two parts, the way real ones may."""
    try:
        while await reader.readexactly(len(REQUEST)):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            await asyncio.sleep(0)
            writer.write(b'{"y": %.1f}' % ANSWER)
    except asyncio.IncompleteReadError:
        writer.close()


async def test_the_client_counts_answers_and_times_them() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        moments = [n / 1000 for n in range(100)]
        outcome = await serve_order({"port": port, "moments": moments})
        latencies = outcome["latencies"]
        assert len(latencies) == 100
        assert 0 < outcome["share"] <= 1.5
        assert all(0 < latency < 1 for latency in latencies)
        assert (await closed_loop(port, 2, 0.1))["answers"] > 10
        server.close()
    await asyncio.sleep(0.01)


async def test_a_wrong_answer_is_none() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(REQUEST))
        writer.write(b'HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\n{"y": 7.0}')
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await serve_order({"port": port, "moments": [0.0]}))["latencies"] == [None]
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("contender", OURS, ids=lambda each: each.name)
def test_every_set_up_of_ours_answers(contender: Contender) -> None:
    pytest.importorskip("fastapi")
    with running(contender, workers=2) as site:
        assert site.order(clients=4, seconds=0.2)["answers"] > 10


def test_a_run_with_ourselves_alone() -> None:
    pytest.importorskip("fastapi")
    options = ["--seconds", "0.3", "--rounds", "1", "--against", "nobody"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.http", *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert f"| {CONTENDERS[0].name} | " in done.stdout
    assert "(goal >= 0.97)" in done.stdout
    assert "threads that only call the model reach 0." in done.stdout
