"""Exit statuses, and the error that means 2."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
FAILED: Final = 1  # some items failed
USAGE: Final = 2
HALTED: Final = 3  # by --halt
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
READER_GONE: Final = 141  # 128 + SIGPIPE: `director run ... | head` is no failure of anybody's
TERMINATED: Final = 143  # 128 + SIGTERM


class UsageError(Exception):
    """The command line can't be obeyed; nothing ran.

    Args:
        message: The cause and the remedy.
        detail: What belongs before the message, such as a traceback; empty, or ends with a line break.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
