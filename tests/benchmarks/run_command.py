"""What `director run` costs: ``python -m benchmarks.run_command``, ``--goals`` to compare it with its goals.

Items a second of work that does nothing, with and without a journal, beside GNU parallel and xargs, all with two slots
and each with the time of its start; memory by the number of items; bytes of the journal; and how fast a resumed run
reads what is done, beside a loop of `json.loads` over the same lines. Programs that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from director.cli._run.journal.history import read_history

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = "def nothing(device, line):\n    return 1\n"
TRUE = shutil.which("true") or "/bin/true"


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        name: What was measured.
        value: The figure.
        unit: Its unit.
        goal: The most it may be, or the least if `at_least`; `None`: it has no goal.
        at_least: Whether the goal is a minimum.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def is_missed(self) -> bool:
        """Whether the goal is not reached."""
        return self.goal is not None and (self.value < self.goal if self.at_least else self.value > self.goal)

    def __str__(self) -> str:
        bound = "" if self.goal is None else f"   goal {'>=' if self.at_least else '<='} {self.goal:g}"
        return f"{self.name:<58}{self.value:>12,.1f} {self.unit}{bound}{', missed' if self.is_missed else ''}"


@dataclass(frozen=True)
class Ran:
    """How long a command took, and its peak of memory in bytes."""

    seconds: float
    peak: int


def run(command: list[str], stdin: Path | None = None) -> Ran:
    """Run a command to its end."""
    began = time.perf_counter()
    with (stdin or Path(os.devnull)).open("rb") as source:
        child = subprocess.Popen(command, stdin=source, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} ended with {child.returncode}")
    return Ran(time.perf_counter() - began, usage.ru_maxrss * 1024)


def director(folder: Path, lines: Path, *words: str) -> Ran:
    """`director run` over the lines of a file."""
    command = [sys.executable, "-m", "director", "run", f"{folder}/nothing.py:nothing", str(lines), "--lines"]
    return run([*command, "--devices", "cpu:2", "--quiet", *words])


def write_lines(path: Path, count: int) -> Path:
    """A file with so many lines, names of files as an item often is."""
    with path.open("w") as file:
        file.writelines(f"photos/{number:07}.jpg\n" for number in range(count))
    return path


def rates(folder: Path, items: int, programs: int) -> Iterator[Row]:
    """Items a second, alternately."""
    lines, few = write_lines(folder / "lines", items), write_lines(folder / "few", programs)
    best: dict[str, float] = {}
    for _ in range(3):
        took = {
            "director run, with a journal": items
            / director(folder, lines, "--output", f"{folder}/rate.jsonl", "--fresh").seconds,
            "director run, to the standard output": items / director(folder, lines).seconds,
        }
        if shutil.which("xargs"):
            took["xargs -P2 -n1 true"] = programs / run(["xargs", "-P2", "-n1", TRUE], few).seconds
        if shutil.which("parallel"):
            command = ["parallel", "-j2", "--will-cite", TRUE]
            took["parallel -j2 true"] = (programs // 4) / run(
                command, write_lines(folder / "fewer", programs // 4)
            ).seconds
        best = {name: max(rate, best.get(name, 0.0)) for name, rate in took.items()}
    ours = best["director run, with a journal"]
    for name, rate in best.items():
        yield Row(name, rate, "items/s")
    for name, goal in (("xargs -P2 -n1 true", 2.0), ("parallel -j2 true", 5.0)):
        if name in best:
            yield Row(f"director run, with a journal, to {name}", ours / best[name], "times", goal, at_least=True)


def memory(folder: Path, items: int) -> Iterator[Row]:
    """The peak of memory for so many items, and for a tenth of them."""
    peaks = []
    for count in (items // 10, items):
        lines = write_lines(folder / "lines", count)
        peaks.append(director(folder, lines, "--output", f"{folder}/memory.jsonl", "--fresh").peak)
        yield Row(f"peak of memory with {count:,} items", peaks[-1] / 2**20, "MiB")
    yield Row("memory for each item more", (peaks[1] - peaks[0]) / (items - items // 10), "bytes", 64.0)
    journal = (folder / "memory.jsonl.journal").stat().st_size
    yield Row("journal for each item", journal / items, "bytes", 150.0)


def resume(folder: Path, items: int) -> Iterator[Row]:
    """How fast the journal of `memory` is read; what is read is in the cache of the system."""
    output, journal = folder / "memory.jsonl", folder / "memory.jsonl.journal"
    plain, ours = [], []
    for _ in range(3):
        began = time.perf_counter()
        with journal.open("rb") as file:
            for line in file:
                json.loads(line)
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        with journal.open("rb") as lines, output.open("rb") as records:
            history = read_history(str(output), lines, records)
        ours.append(time.perf_counter() - began)
        assert history.ok == items
    yield Row("a loop of json.loads over the journal", items / min(plain), "lines/s")
    yield Row("reading it to resume, each record checked", items / min(ours), "lines/s")
    yield Row("the same, to the loop", min(plain) / min(ours), "times", 0.5, at_least=True)
    lines = folder / "lines"
    took = director(folder, lines, "--output", str(output), "--resume").seconds
    yield Row(f"a resumed run with nothing to do, {items:,} items", took, "s")


def main() -> int:
    """Measure, print, and return 1 if `--goals` are missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_command")
    parser.add_argument("--items", type=int, default=1_000_000, help="of the measurements of memory (1000000)")
    parser.add_argument("--goals", action="store_true", help="exit with status 1 where one is missed")
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nothing.py").write_text(NOTHING)
        for part in (
            rates(folder, options.items // 5, 2000),
            memory(folder, options.items),
            resume(folder, options.items),
        ):
            for row in part:
                print(row, flush=True)
                missed = missed or row.is_missed
    return 1 if missed and options.goals else 0


if __name__ == "__main__":
    sys.exit(main())
