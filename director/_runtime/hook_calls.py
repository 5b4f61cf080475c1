"""What hooks raise changes nothing: it is logged, or stops the event loop a little later. On the event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from director._untrusted.objects import is_a, log_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.hooks import JobRecorder, RawRecord

logger = logging.getLogger("director")
RECORDER_RAISED = "the recorder %s raised at the end of %s"


def to_all(recorders: tuple[JobRecorder, ...]) -> Callable[[RawRecord], None]:
    """A function that passes a record to all of these."""
    records = [recorder.record for recorder in recorders]

    def record(raw: RawRecord) -> None:
        for recorder, take in zip(recorders, records, strict=True):
            try:
                take(raw)
            except BaseException as error:  # noqa: BLE001 - the other recorders get the record all the same
                log_or_leave(error, RECORDER_RAISED, recorder, raw)

    return record


def safely(hook: object, call: Callable[..., object], *args: object) -> None:
    """Call a method of a hook; what it raises is logged and changes nothing."""
    try:
        call(*args)
    except BaseException as error:  # noqa: BLE001
        log_or_leave(error, "the hook %s raised", hook)


def log_or_leave(error: BaseException, message: str, *facts: object) -> None:
    """Log what a hook raised; `SystemExit` and `KeyboardInterrupt` stop the event loop a little later."""
    if is_a(error, (SystemExit, KeyboardInterrupt)):
        _leave_loop(error)
    else:
        log_error(logger, error, message, *facts)


def _leave_loop(error: BaseException) -> None:
    """Have the event loop raise `SystemExit` or `KeyboardInterrupt` from a callback of its own.

    A user's callback that raises them is called within our own code, which has to finish first.
    """
    try:
        asyncio.get_running_loop().call_soon(_raise, error)
    except RuntimeError:  # the loop has stopped already
        log_error(logger, error, "a callback raised while the Director was abandoned")


def _raise(error: BaseException) -> None:
    raise error
