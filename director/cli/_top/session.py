"""One `director top` from its arguments to its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

import anyio

from director.cli._console import hint_at_rich, on_terminal, print_error, print_json, print_text, shown_document
from director.cli._status import DONE, FAILED, UsageError
from director.cli._top.find import find_app
from director.cli._top.known import DashboardState
from director.cli._top.report import report
from director.dashboard._source import Remote

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from director.cli._top.screen import Screen

_LATE = 3.0  # seconds without a frame, after which a note is shown


def watch(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        The exit status.

    Raises:
        UsageError: There is no app or more than one, or a package is missing.
    """
    return asyncio.run(_watch(options))


async def _watch(options: argparse.Namespace) -> int:
    try:
        path = await find_app(options.app)
        if options.web:
            await _serve(path, options)
        elif options.json or options.once or (screen := _make_screen()) is None:
            await _print(Remote(path), options)
        else:
            await Watch(Remote(path), screen, options.every).run()
    except BrokenPipeError:  # the reader of our output has gone; a lost app is another `ConnectionError`
        raise
    except OSError as error:
        print_error(f"director top: {error}")
        return FAILED
    return DONE


def _make_screen() -> Screen | None:
    """A screen, where the standard output is a terminal that can show one."""
    if not on_terminal(sys.stdout):
        return None
    try:
        from director.cli._top.screen import Screen
    except ImportError:
        hint_at_rich()
        return None
    return Screen()


async def _serve(path: Path, options: argparse.Namespace) -> None:
    try:
        from director.cli._top.web import serve_page
    except ImportError:
        raise UsageError("--web needs uvicorn: pip install 'gpu-director[dashboard]'") from None
    await serve_page(path, options.host, options.port)


async def _print(source: Remote, options: argparse.Namespace) -> None:
    while True:
        seen = await source.snapshot()
        if options.json:
            print_json(seen)
        else:
            print_text([*report(shown_document(seen)), ""])
        if options.once:
            return
        await anyio.sleep(options.every)


class Watch:
    """Updates a screen until the user quits."""

    def __init__(self, source: Remote, screen: Screen, every: float) -> None:
        self._source = source
        self._screen = screen
        self._every = every
        self._known = DashboardState()
        self._detail: dict[str, Any] | None = None
        self._heard = asyncio.get_running_loop().time()
        self._gone: ConnectionError | None = None
        self._scope = anyio.CancelScope()
        self._moving = asyncio.Event()  # set while not paused
        self._moving.set()
        self._asked = asyncio.Event()  # set when something was opened

    async def run(self) -> None:
        """Watch until quit.

        Raises:
            ConnectionError: The app has gone.
        """
        with self._screen, Keys(self._pressed), self._scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._follow)
                group.start_soon(self._refresh_details)
        if self._gone is not None:
            raise self._gone

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(self._source.frames(interval=self._every)) as frames:
                async for _, frame in frames:
                    self._heard = asyncio.get_running_loop().time()
                    self._screen.note = "live"
                    self._known.apply(shown_document(json.loads(frame)))
                    self._draw()
                    await self._moving.wait()  # the app keeps frames meanwhile, or sends the whole again
        except ConnectionError as gone:
            self._gone = gone
            self._scope.cancel()

    async def _refresh_details(self) -> None:
        """Once a second, fetch what is open, and check whether the app still sends frames."""
        while True:
            self._asked.clear()
            await self._fetch()
            silence = asyncio.get_running_loop().time() - self._heard
            if silence > _LATE and not self._screen.is_paused:
                self._screen.note = f"no news for {silence:.0f} s: the app's event loop is blocked"
                self._draw()
            with anyio.move_on_after(1):
                await self._asked.wait()

    async def _fetch(self) -> None:
        wanted = self._screen.opened
        if wanted is None:
            return
        kind, number = wanted
        with contextlib.suppress(ConnectionError):
            found = await (self._source.job(number) if kind == "job" else self._source.failure(number))
            if self._screen.opened == wanted:
                self._detail = shown_document(found)
                self._draw()

    def _pressed(self, key: str) -> None:
        if key == "quit":
            self._scope.cancel()
            return
        opened = self._screen.opened
        if self._known.identity:
            self._screen.press(key, self._known)
        if self._screen.is_paused:
            self._moving.clear()
        else:
            self._moving.set()
        if self._screen.opened != opened:
            self._detail = None
            self._asked.set()
        self._draw()

    def _draw(self) -> None:
        if self._known.identity:
            self._screen.draw(self._known, self._detail)


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
