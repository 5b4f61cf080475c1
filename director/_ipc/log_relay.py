"""Log records of a child, on their way to the parent's loggers of the same names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = frozenset({str, int, float, bool, type(None)})
_formatter = logging.Formatter()


def levels() -> dict[str, int]:
    """The levels that this program has set, by logger; the root's is called ``""``."""
    found = {"": logging.getLogger().level}
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = logger.level
    return found


def redirect(levels: dict[str, int], tell: Callable[[dict[str, Any]], None]) -> None:
    """In the child: send every record to `tell`, at the levels that the parent has set."""
    logging.getLogger().handlers[:] = [RelayHandler(tell)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def relay(facts: dict[str, Any], label: str) -> None:
    """In the parent: hand a child's record to the logger it was made for, if that listens to its level."""
    logger = logging.getLogger(facts["name"])
    if logger.isEnabledFor(facts["levelno"]):
        logger.handle(logging.makeLogRecord({**facts, "processName": label}))


class RelayHandler(logging.Handler):
    """Sends records as plain values: texts are made here, where the objects are.

    Args:
        tell: Takes the facts of a record.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Send `record`."""
        try:
            self._tell(_plain(record))
        except Exception:  # noqa: BLE001 - as every handler of logging does: a log line must not end a job
            self.handleError(record)


def _plain(record: logging.LogRecord) -> dict[str, Any]:
    text = record.exc_text or (_formatter.formatException(record.exc_info) if record.exc_info else None)
    facts = {**vars(record), "msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}
    return {str.__str__(key): value if type(value) in _PLAIN else _text(value) for key, value in facts.items()}


def _text(value: Any) -> str:
    """Of the exact class: one of a class that is derived from `str` may do anything when it is read."""
    return str.__str__(str(value))
