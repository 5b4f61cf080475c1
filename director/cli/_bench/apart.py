"""Runs a function in a new process, without state of other experiments, on one core or on all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


GRACE = 5.0  # s between an answer and the end of its process


class ExperimentDied(RuntimeError):
    """The process of an experiment ended without an answer."""


def can_pin() -> bool:
    """Whether this system can bind a process to one core."""
    return hasattr(os, "sched_setaffinity")


def run_apart(function: Callable[..., Any], *args: Any, one_core: bool = False) -> Any:
    """Call `function` in a fresh interpreter and return what it returns.

    Interrupting the caller ends the process. What the function raises ends it too, with its traceback on stderr.

    Args:
        function: Importable by name.
        *args: Sent to the process.
        one_core: Bind the process, and all its threads, to one core.

    Raises:
        ExperimentDied: The process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")  # a forked child would inherit our threads' locks
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, one_core, function, args))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        process.join()
        raise ExperimentDied(f"an experiment ended with exit status {process.exitcode} instead of an answer") from None
    except BaseException:
        process.kill()  # interrupted: the answer is not needed
        raise
    finally:
        mine.close()
        process.join(timeout=GRACE)
        process.kill()  # a contender may have started a thread that does not end
        process.join()


def _child(answer: Connection, one_core: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # interrupted from the terminal: end at once without a traceback
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    answer.send(function(*args))
    answer.close()
