"""Which executor is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors._process.executor import ProcessExecutor
from director._executors._thread import ThreadExecutor
from director._user_objects import plain, provides, repr_of

if TYPE_CHECKING:
    from director._executors._base import Executor, FleetExecutor


def executor_of(wanted: Any) -> Executor | FleetExecutor:
    """What `Director(executor=...)` means.

    Raises:
        ValueError: Nothing.
    """
    text = plain(wanted)
    if text == "thread":
        return ThreadExecutor()
    if text == "process":
        return ProcessExecutor()
    if provides(wanted, "seat") or provides(wanted, "fleet"):
        return wanted  # type: ignore[no-any-return]
    raise ValueError(f'executor must be "thread", "process" or an Executor, not {repr_of(wanted, 200)}')
