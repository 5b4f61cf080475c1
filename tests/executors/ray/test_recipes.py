"""The recipes of the page that no test can run: whether they are well made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "ray.md"
CONTAINER = {"name": str, "image": str, "resources": {"limits": {"cpu": str, "memory": str, "nvidia.com/gpu": str}}}
POD = {"spec": {"containers": [CONTAINER]}}
RAY_JOB = {  # those fields of KubeRay's custom resource (ray.io/v1) that the recipe may use, and their types
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "rayClusterSpec": {
            "headGroupSpec": {"rayStartParams": {}, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": {},
                    "template": POD,
                }
            ],
        },
    },
}


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(#!.*?|apiVersion.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def check(value: Any, shape: Any, where: str = "") -> None:
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        for name, inner in value.items():
            assert name in shape, f"{where}.{name}"
            check(inner, shape[name], f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for inner in value:
            check(inner, shape[0], where)
    else:
        assert type(value) is shape, where


def test_the_job_for_kubernetes_has_known_fields() -> None:
    yaml = pytest.importorskip("yaml")  # Ray brings it
    job = yaml.safe_load(block("yaml"))
    check(job, RAY_JOB)
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_the_script_for_slurm_is_well_formed(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(block("bash"))
    read = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
