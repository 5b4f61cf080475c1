"""What a user's ``devices=`` means in a cluster. Pure."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from director._numbers import number_in
from director.errors import NoDevices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from director._devices.discovery import DeviceSpec
    from director._executors._ray.nodes import Node

logger = logging.getLogger("director")
_GPU, _CPU = {"GPU": 1.0}, {"CPU": 1.0}
_ALL = 1 << 30


def amounts_of(
    spec: DeviceSpec, resources: Mapping[str, float] | None, nodes: Sequence[Node]
) -> tuple[dict[str, float], int]:
    """What each device holds of its node, and how many devices a node has at most.

    Args:
        spec: Of the Director.
        resources: Of the executor.
        nodes: What there is.

    Raises:
        NoDevices: GPUs are asked for, and there is none.
        ValueError: `spec` means nothing here.
    """
    if resources is not None:
        if spec is not None:
            raise ValueError(f"RayExecutor(resources=...) says what a device is; leave out devices={spec!r}")
        return dict(resources), _ALL
    has_gpus = any(node.holds(_GPU) for node in nodes)
    if spec in ("gpu", "cuda") and not has_gpus:
        raise NoDevices("No node of the Ray cluster has a GPU. Without GPUs, 'cpu' or 'cpu:4' can be used.")
    if spec in ("gpu", "cuda") or (spec is None and has_gpus):
        return dict(_GPU), _ALL
    if spec is None:
        logger.warning(
            "No node of the Ray cluster has a GPU, so jobs run on one CPU of each. Say devices='cpu' if that is what "
            "you want, or devices='gpu' to have an error instead."
        )
        return dict(_CPU), 1
    if isinstance(spec, str) and (asked := re.fullmatch("cpu(?::([0-9]*[1-9][0-9]*))?", spec)):
        return dict(_CPU), min(_ALL, number_in(asked[1] or "1"))
    raise ValueError(
        f"devices={spec!r} names devices of this machine. In a Ray cluster say None, 'gpu', 'cpu' or 'cpu:4' (so many "
        "on each node); one job's devices= names those that it may use"
    )
