"""Relays the log records of a child to the parent's loggers of the same names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = frozenset({str, int, float, bool, type(None)})
_formatter = logging.Formatter()


def levels() -> dict[str, int]:
    """The levels set in this process, by logger name; ``""`` is the root."""
    found = {"": int(logging.getLogger().level)}  # which may be of an enum
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[_text(name)] = int(logger.level)
    return found


def redirect(levels: dict[str, int], send: Callable[[dict[str, Any]], None]) -> None:
    """In the child: send every record to `send`, at the levels that the parent has set."""
    logging.getLogger().handlers[:] = [RelayHandler(send)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def relay(facts: dict[str, Any], label: str) -> None:
    """In the parent: pass a child's record to the logger of the same name, if that is enabled for its level."""
    logger = logging.getLogger(facts["name"])
    if logger.isEnabledFor(facts["levelno"]):
        logger.handle(logging.makeLogRecord({**facts, "processName": label}))


class RelayHandler(logging.Handler):
    """Sends records as plain values; their arguments are formatted in the child."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send `record`."""
        try:
            self._send(_plain(record))
        except Exception:  # noqa: BLE001 - as all handlers of logging do: a log line must not fail a job
            self.handleError(record)


def _plain(record: logging.LogRecord) -> dict[str, Any]:
    text = record.exc_text or (_formatter.formatException(record.exc_info) if record.exc_info else None)
    facts = {**vars(record), "msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}
    return {str.__str__(key): value if type(value) in _PLAIN else _text(value) for key, value in facts.items()}


def _text(value: Any) -> str:
    """As an exact `str`: a subclass may run code when it is read."""
    return str.__str__(str(value))
