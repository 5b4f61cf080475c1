"""A Director behind FastAPI against other servers, in one run: `python3 noxfile.py -s peers`.

Every server serves the same model (5 ms + 0.2 ms for each item, 16 at most at a time), with the same clients on the
same machine. In each round all are measured one after the other, each round beginning with another one.
"""

from __future__ import annotations

import argparse
import platform
import signal
import sys
from importlib.metadata import version
from importlib.util import find_spec
from os import cpu_count

from benchmarks.http import arrivals, model
from benchmarks.http.contender import CONTENDERS, Contender, Site, running
from benchmarks.http.sheet import Load, Row, goals, spread, table

LOADS = (0.5, 0.8, 0.95)  # of the model's peak
CLIENTS = 64  # of the closed loop


def measure(row: Row, site: Site, seconds: float, workers: int, seed: int) -> None:
    """One server in one round."""
    closed = site.order(clients=CLIENTS, seconds=seconds)
    row.closed.append(closed["answers"] / closed["seconds"])
    row.client.append(closed["share"])
    row.server.append(closed["used"] / max(1, closed["answers"]))
    row.at_rest.append(site.share_at_rest(min(seconds, 3.0)))
    for share in LOADS:
        moments = arrivals.poisson(share * model.peak(workers), seconds, seed)
        row.loads.setdefault(share, []).append(under_load(site, moments, workers))


def under_load(site: Site, moments: list[float], workers: int) -> Load:
    latencies: list[float | None] = site.order(moments=moments)["latencies"]
    known = [latency for latency in latencies if latency is not None]
    ideal = arrivals.ideal(moments, workers)
    in_time = sum(
        latency is not None and moment + latency <= moments[-1] + 10 * max(ideal)
        for moment, latency in zip(moments, latencies, strict=True)
    )
    return Load(
        arrivals.quantile(known, 0.5),
        arrivals.quantile(known, 0.99),
        arrivals.quantile(ideal, 0.99),
        in_time / len(moments),
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def chosen(words: str | None) -> list[Contender]:
    """Those whose names hold one of the words; the first one, ours, is always there."""
    others = [each for each in CONTENDERS[1:] if words is None or any(word in each.name for word in words.split(","))]
    for each in others:
        if not find_spec(each.needs):
            sys.exit(
                f"{each.name} needs {each.needs}: run `python3 noxfile.py -s peers`, or choose others with --against"
            )
    return [CONTENDERS[0], *others]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="copies of the model (default 2)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each cell of the table (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--against", help="words in the names of the other servers, with commas; by default all")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`: no server stays behind
    contenders = chosen(options.against)
    rows = {each: Row(each.name) for each in contenders}
    alone = []
    for number in range(options.rounds):
        alone.append(model.alone(options.workers, options.seconds))
        turn = number % len(contenders)
        for each in contenders[turn:] + contenders[:turn]:
            say(f"round {number + 1} of {options.rounds}: {each.name}")
            with running(each, options.workers) as site:
                measure(rows[each], site, options.seconds, options.workers, seed=number)
    peak = model.peak(options.workers)
    packages = ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(each.needs for each in contenders))
    print(f"{cpu_count()} cores, Python {platform.python_version()}, {packages}")
    print(f"{options.workers} workers, {options.rounds} rounds of {options.seconds:g} s a cell")
    print(f"peak {peak:,.0f}/s, of which threads that only call the model reach {spread(alone, 1 / peak, 3)}")
    print("median (least-most); p99 also as a multiple of the ideal's on the same arrivals\n")
    print(table(list(rows.values()), peak))
    print("\n" + "\n".join(goals(list(rows.values()), peak)))


if __name__ == "__main__":
    main()
