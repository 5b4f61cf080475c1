"""Devices of a Ray cluster instead of this machine's: ``Director(executor=RayExecutor(address="auto"))``.

Needs ``pip install 'gpu-director[ray]'``, here and on every node.
"""

from __future__ import annotations

from director._executors._ray.executor import RayExecutor

__all__ = ["RayExecutor"]
