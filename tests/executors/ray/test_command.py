"""The command line with a cluster: a program of its own, which connects by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from executors.ray.conftest import SLOW

if TYPE_CHECKING:
    from pathlib import Path

WORK = """
import os

def where(device, item):
    return [device.node, int(item) + helper(), os.getpid()]

def helper():
    return 1
"""


def director(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "director", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SLOW, check=False, cwd=cwd)


def test_a_run_in_a_cluster(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "numbers.txt").write_text("1\n2\n3\n4\n")
    options = ("--lines", "--ordered", "--quiet", "--ray", cluster.address)
    ran = director("run", "work.py:where", "numbers.txt", *options, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [record["result"][1] for record in records] == [2, 3, 4, 5]
    assert all(record["device"].endswith("@" + record["result"][0]) for record in records)


def test_the_nodes_of_a_cluster(cluster: Any, tmp_path: Path) -> None:
    listed = director("devices", "--ray", cluster.address, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    head, *rows = listed.stdout.splitlines()
    assert head.split()[:2] == ["node", "GPU"]
    assert [row.split()[1] for row in rows] == ["2", "2"]
    told = json.loads(director("devices", "--ray", cluster.address, "--json", cwd=tmp_path).stdout)
    assert [node["resources"]["GPU"] for node in told["nodes"]] == [2, 2]


def test_no_cluster(tmp_path: Path) -> None:
    ran = director("devices", "--ray", "127.0.0.1:1", cwd=tmp_path)
    assert ran.returncode == 1
    assert "no Ray cluster answers at '127.0.0.1:1'" in ran.stderr
    assert "ray start --head" in ran.stderr


def test_an_address_of_another_kind(tmp_path: Path) -> None:
    ran = director("devices", "--ray", "ray://head:10001", cwd=tmp_path)
    assert ran.returncode == 2
    assert "Ray Client" in ran.stderr
