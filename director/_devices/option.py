"""How messages write the option `devices`: as an argument in Python, or as on the command line while a command runs.

Written by `on_command_line`, on the thread that runs a command.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_is_on_command_line = False


def written(value: object) -> str:
    """The option with a value, such as ``devices='cpu'`` or ``--devices cpu``."""
    return f"--devices {value}" if _is_on_command_line else f"devices={value!r}"


@contextmanager
def on_command_line() -> Iterator[None]:
    """Messages within the block are for a user of the command line."""
    global _is_on_command_line
    before, _is_on_command_line = _is_on_command_line, True
    try:
        yield
    finally:
        _is_on_command_line = before
