"""Which executor is meant."""

from __future__ import annotations

from typing import Any

from director._executors._base import Executor, FleetExecutor
from director._executors._process.executor import ProcessExecutor
from director._executors._thread import ThreadExecutor


def executor_of(wanted: Any) -> Executor | FleetExecutor:
    """What `Director(executor=...)` means.

    Raises:
        ValueError: Nothing.
    """
    if wanted == "thread":
        return ThreadExecutor()
    if wanted == "process":
        return ProcessExecutor()
    if isinstance(wanted, (Executor, FleetExecutor)):
        return wanted
    raise ValueError(f'executor must be "thread", "process" or an Executor, not {wanted!r}')
