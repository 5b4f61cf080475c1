"""Reads single keys, with the terminal in non-canonical mode. Owner of the terminal's settings."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\t": "next",
    b"\x1b[C": "next",
    b"\x1b[Z": "previous",
    b"\x1b[D": "previous",
    b"\r": "open",
    b"\n": "open",
    b" ": "pause",
    b"\x1b": "back",
    b"\x7f": "back",
    b"q": "quit",
    b"\x04": "quit",
}


class Keys:
    """Calls `pressed` with the name of each key, on the running event loop, between `__enter__` and `__exit__`.

    Does nothing if the standard input is not a terminal.

    Args:
        pressed: Called with the name of the key.
    """

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
            asyncio.get_running_loop().add_reader(sys.stdin, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            asyncio.get_running_loop().remove_reader(sys.stdin)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        typed = os.read(sys.stdin.fileno(), 64)
        if not typed:
            self._pressed("quit")  # the terminal was closed
        elif typed in _NAMES:
            self._pressed(_NAMES[typed])
        else:  # several keys at once, or unknown ones
            for number in typed if b"\x1b" not in typed else b"":
                self._pressed(_NAMES.get(bytes([number]), ""))
