"""A storm over a Ray cluster: what is different there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ray

from director.ray import RayExecutor

if TYPE_CHECKING:
    from benchmarks.chaos.values import Value


def executor(address: str) -> RayExecutor:
    """For the Director of a storm."""
    return RayExecutor(address=address, grace=0.2)


def later(value: Value, seconds: float) -> Any:
    """A reference to the value, which will be there after so many seconds."""
    return ray.remote(num_cpus=0)(_make_later).remote(value, seconds)


def _make_later(value: Value, seconds: float) -> Value:
    time.sleep(seconds)
    return value
