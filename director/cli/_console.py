"""All output of the commands to a terminal goes through here, with control characters escaped.

Names, messages, paths and log records may come from any source. `print_text` writes text, `EscapingConsole` live views,
and `escape_logs_and_errors` handles what is written on behalf of the commands: by the argument parser, loggers, and
Python itself. What the user's own function prints is not changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import unicodedata
import warnings
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TextIO

from director._format import did_you_mean, plain
from director._untrusted.objects import story_of
from director.cli._status import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def open_closed_streams() -> None:
    """Open the standard streams that this process was started without.

    Else the next file that is opened, perhaps that of the results, has the descriptor of one, and what native code and
    programs print goes there. What is printed is dropped; writing to the descriptor of the standard output fails, so
    results that were to go there are not lost in silence.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        held = os.open(os.devnull, os.O_RDWR if name == "stderr" else os.O_RDONLY)
        if held != number:  # the descriptor is that of something else by now
            os.close(held)
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the life of the process


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of a table; the first `left` columns are aligned left, the rest right.

    Control characters are escaped, because cells contain names and messages from any source.
    """
    lines = [[plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]
    return [_line(line, widths, left) for line in lines]


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    room = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
    cells = [
        cell + space if column < left else space + cell
        for column, (cell, space) in enumerate(zip(row, room, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def on_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that escape sequences may be sent to: False with NO_COLOR or TERM=dumb."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


@cache
def hint_at_rich() -> None:
    """Print, once, how to get the live view that this terminal could show."""
    print_error("(for a live view: pip install 'gpu-director[cli]')")


def print_text(text: str | Iterable[str]) -> None:
    """Print text, or lines, to the standard output.

    Raises:
        OutputError: It can't be written.
        BrokenPipeError: Its reader has gone.
    """
    try:
        _write(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error) from None


def print_tick(text: str = ".") -> None:
    """Write progress to the standard error, without a line break."""
    sys.stderr.write(text)
    sys.stderr.flush()


def print_json(document: object, *, indent: int | None = None) -> None:
    """Print a document to the standard output, in ASCII; as `print_text`."""
    print_text(json.dumps(document, indent=indent))


def print_error(text: str | Iterable[str]) -> None:
    """Print text, or lines, to the standard error; they are dropped if the terminal or reader is gone."""
    with contextlib.suppress(OSError):
        _write(text, sys.stderr)


def shown(text: str) -> str:
    """Text of several lines with control characters escaped, except line breaks."""
    return "\n".join(plain(line.expandtabs()) for line in text.split("\n"))


def shown_document(document: Any, key: str = "") -> Any:
    """A JSON document of another process with control characters escaped.

    Messages and tracebacks keep their line breaks.
    """
    if isinstance(document, str):
        return shown(document) if key in ("message", "traceback") else plain(document)
    if isinstance(document, list):
        return [shown_document(each, key) for each in document]
    if isinstance(document, dict):
        return {plain(name): shown_document(value, name) for name, value in document.items()}
    return document


def shown_json(lines: bytes) -> bytes:
    """Lines of JSON with the same values and all control characters escaped."""
    return "\n".join(map(_json_line, lines.decode("utf-8", "replace").split("\n"))).encode()


def _json_line(line: str) -> str:
    if line.isprintable():
        return line
    # Outside of strings, control characters can only be white space, such as a tab or a carriage return.
    return "".join(" " if each in "\t\r" else each if plain(each) == each else json.dumps(each)[1:-1] for each in line)


def _write(text: str | Iterable[str], stream: TextIO) -> None:
    lines = shown(text if isinstance(text, str) else "\n".join(text))
    # In one call: print() writes the line break separately, and results could be written in between.
    stream.write(f"{lines}\n")
    stream.flush()


class Parser(argparse.ArgumentParser):
    """Escapes control characters of arguments in its error messages, and names what a wrong word may stand for."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all of `args`, or print what is unknown and exit with 2."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = {name for parser in self._parsers() for action in parser._actions for name in action.option_strings}
            wrong = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(wrong, known)}")
        return found

    def _parsers(self) -> Iterator[argparse.ArgumentParser]:
        yield self
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.values()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(each) for each in action.choices]
            meant = did_you_mean(value, known) if isinstance(value, str) else ""
            choices = f"invalid choice: {value!r} (choose from {', '.join(known)}){meant}"
            raise argparse.ArgumentError(action, choices)

    def error(self, message: str) -> Any:
        """Print the message, which may quote arguments, and exit with 2."""
        super().error(shown(message))


class _Handler(logging.Handler):
    """The handler of last resort, for records that no other handler takes."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print_error(self.format(record))
        except Exception:  # noqa: BLE001 -- as in `logging`: an error of a record must not fail the program
            self.handleError(record)


@contextlib.contextmanager
def escape_logs_and_errors() -> Iterator[None]:
    """Have loggers without handlers, warnings and errors of threads written as `print_error` does."""
    before = logging.lastResort, threading.excepthook, sys.unraisablehook, warnings.showwarning
    logging.lastResort = _Handler(logging.WARNING)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warn
    try:
        yield
    finally:
        logging.lastResort, threading.excepthook, sys.unraisablehook, warnings.showwarning = before


def _thread_failed(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is not SystemExit and found.exc_value is not None:
        name = "a thread" if found.thread is None else found.thread.name
        print_error(f"Exception in thread {name}:\n{trace_of(found.exc_value)}")


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    if found.exc_value is not None:
        print_error(f"{found.err_msg or 'Exception ignored'}:\n{trace_of(found.exc_value)}")


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: IO[str] | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line).removesuffix("\n")
    if file is None:
        print_error(text)
    else:
        file.write(f"{text}\n")


def trace_of(error: BaseException) -> str:
    """The traceback as Python prints it, without the last line break."""
    return story_of(error).removesuffix("\n")
