"""Devices of a Ray cluster instead of this machine's: ``Director(executor=RayExecutor(address="auto"))``.

Needs ``pip install 'gpu-director[ray]'``, here and on every node.
"""

from __future__ import annotations

from director._executors.ray.cluster.connection import cluster_nodes
from director._executors.ray.cluster.nodes import Node
from director._executors.ray.executor import RayExecutor
from director._executors.ray.pickling import send_by_value

__all__ = ["Node", "RayExecutor", "cluster_nodes", "send_by_value"]
