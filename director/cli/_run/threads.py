"""Threads that may block without keeping the process from exiting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Callable


def start_thread(work: Callable[[], object], name: str) -> None:
    """Call `work` on a daemon thread, which does not keep the process from exiting.

    Raises:
        DirectorError: The system can't start another thread.
    """
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        raise DirectorError(
            f"{error}: {name} needs a thread. Raise the limit of processes and threads (ulimit -u, pids.max), "
            "or that of memory (ulimit -v)."
        ) from None
