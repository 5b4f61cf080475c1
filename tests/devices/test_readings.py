"""What the GPUs do at this moment, on machines that are made up: `director devices --watch`, and the dashboard."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from director import Device
from director._devices.readings import Reading
from director.cli import _watch

pytestmark = pytest.mark.programs

GIB = 2**30
A, B, C = (f"GPU-{start}-0000-0000-0000-000000000000" for start in ("aaaa1111", "aabb2222", "cccc3333"))
M1 = "MIG-11111111-0000-0000-0000-000000000000"

READ = f"""
import dataclasses, json
from director._devices.readings import read
print(json.dumps([dataclasses.asdict(each) for each in read({[A, B, M1, C]!r})]))
"""

SHOWN = """
import asyncio
from director import Director
from director.dashboard import Dashboard

async def main():
    director = Director()
    dashboard = Dashboard(director)
    async with director:
        while (seen := await dashboard.snapshot())["devices"][0]["used_memory"] is None:
            await asyncio.sleep(0.01)
        print(*[seen["devices"][0][key] for key in ("device", "used_memory", "load", "temperature", "power")])

asyncio.run(main())
"""


def watched(machine: Any, *options: str, lines: int) -> list[str]:
    """The first lines of `director devices --watch`, which does not end by itself."""
    command = f"{sys.executable} -m director devices --watch --every 0.1 {' '.join(options)} | head -n {lines}"
    done = machine.run(["bash", "-c", command])
    return list(done.stdout.splitlines())


def full(machine: Any) -> Any:
    settings = {"free": 60 * GIB, "load": 93, "temperature": 61, "power": 312_500, "compute_mode": 0}
    return machine.nvml().gpu(A, **settings).gpu(B, "Tesla T4", 15 * GIB, free=15 * GIB, compute_mode=3).cuda(A, B)


def test_every_reading(machine: Any) -> None:
    done = full(machine).gpu(C, fail="handle=15", mig=f"{M1} H100-MIG {10 * GIB} 1 0").run([sys.executable, "-c", READ])
    first, second, piece, lost = json.loads(done.stdout)
    assert first == {
        "uuid": A,
        "used_memory": 20 * GIB,
        "load": 0.93,
        "temperature": 61,
        "power": 312.5,
        "compute_mode": "default",
        "error": None,
    }
    assert (second["used_memory"], second["load"], second["compute_mode"]) == (0, None, "exclusive")
    assert (piece["error"], lost["error"]) == ("GPU is lost", "GPU is lost")


def test_a_slice_has_memory_and_nothing_else(machine: Any) -> None:
    machine.nvml().gpu(A, mig=f"{M1} H100-MIG {10 * GIB} 1 0", free=4 * GIB, load=50, temperature=50)
    done = machine.run([sys.executable, "-c", READ])
    piece = json.loads(done.stdout)[2]
    assert (piece["used_memory"], piece["load"], piece["temperature"], piece["error"]) == (6 * GIB, None, None, None)


def test_without_nvml_there_are_none() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_watching(machine: Any) -> None:
    head, first, second, *again = watched(full(machine), lines=6)
    assert head.split() == ["device", "name", "memory", "load", "temperature", "power", "note"]
    assert first.split() == [
        "cuda:0",
        "NVIDIA",
        "H100",
        "20.0",
        "of",
        "80.0",
        "GiB",
        "93.0",
        "%",
        "61",
        "°C",
        "312",
        "W",
    ]
    assert second.split()[-6:] == ["?", "?", "?", "compute", "mode", "exclusive"]
    assert again == [head, first, second]


def test_a_glance_at_the_terminal_tells_which_one_works_and_that_it_is_live() -> None:
    devices = [Device(n, f"GPU-{n}", "NVIDIA H100 80GB HBM3", "cuda", 80 * GIB) for n in range(3)]
    readings = [
        Reading("GPU-0", used_memory=75 * GIB, load=1.0, temperature=84, power=699.9),
        Reading("GPU-1", used_memory=2 * GIB, load=0.08, temperature=40, power=80.0),
        Reading("GPU-2", error="GPU is lost"),
    ]
    head, *rows, note = _watch._lines(list(zip(devices, readings, strict=True)), True)
    assert [re.findall("[█░]+ +[0-9.]+ %", row) for row in rows] == [["█████ 100.0 %"], ["░░░░░   8.0 %"], []]
    assert note == "cuda:2: unusable: GPU is lost"
    assert all(len(line) <= 80 for line in (head, *rows))
    assert re.fullmatch(r"\n\d\d:\d\d:\d\d, read every 0\.5 s; Ctrl-C ends", _watch._footer(0.5))


def test_watching_as_json(machine: Any) -> None:
    seen = [json.loads(line) for line in watched(full(machine), "--json", lines=2)]
    assert seen[0]["time"] < seen[1]["time"]
    assert [device["device"] for device in seen[0]["devices"]] == ["cuda:0", "cuda:1"]
    assert seen[0]["devices"][0]["used_memory"] == 20 * GIB


def test_a_gpu_that_is_lost_while_it_is_watched(machine: Any) -> None:
    machine.nvml().gpu(A).gpu(B, fail="memory=15").cuda(A, B)
    row = watched(machine, lines=3)[2]
    assert row.endswith("unusable: GPU is lost")


def test_watching_nothing_says_so_and_ends(machine: Any) -> None:
    done = machine.nvml(init=9).run([sys.executable, "-m", "director", "devices", "--watch"])
    assert (done.stdout, done.returncode) == ("No GPU is visible: the NVIDIA driver is not loaded.\n", 0)


def test_the_dashboard_shows_them(machine: Any) -> None:
    done = full(machine).run([sys.executable, "-c", SHOWN])
    assert done.stdout.split() == ["cuda:0", str(20 * GIB), "0.93", "61", "312.5"], done.stderr
