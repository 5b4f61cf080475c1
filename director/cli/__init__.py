"""The command line, `director COMMAND`.

A command is a module of this package with `add_parser(subparsers)`, which sets its function by
``set_defaults(run=...)``; that function takes the parsed arguments and returns the exit status. Only the given command
is imported, and what it needs beyond the core is imported when it runs.
"""

from __future__ import annotations

import importlib
import signal
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from director import __version__
from director.cli._console import Parser, escape_logs_and_errors, open_closed_streams, print_error, trace_of
from director.cli._status import (
    DONE,
    FAILED,
    INTERRUPTED,
    READER_GONE,
    TERMINATED,
    USAGE,
    OutputError,
    UsageError,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import FrameType
    from typing import TextIO

COMMANDS = ("devices", "demo", "run", "bench", "top", "doctor")

_EPILOG = """\
exit status: 0 done, 1 some items failed, 2 usage, 3 halted by --halt, 4 refused to
write over results or to resume, 130 and 143 interrupted, 141 the reader has gone
`director COMMAND --help` explains a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; `None`: those of the process.

    Returns:
        The exit status: 0 done, 1 some items failed, 2 usage, 3 halted by ``--halt``, 4 refused to write over
        results or to resume, 130 and 143 interrupted, 141 when the reader of the standard output has closed it.
    """
    open_closed_streams()
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _parser_for(arguments)
    try:
        options = parser.parse_args(arguments, Namespace(argv=arguments))
    except SystemExit as stop:  # argparse has printed why; a calling program gets the status instead of an exit
        return _flushed(int(stop.code or 0))
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    return _flushed(_run_command(options))


def _parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="director",
        description="Run blocking GPU work on every GPU of this machine, each item on whichever GPU is free.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"director {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    named = next((word for word in arguments if not word.startswith("-")), None)
    for command in (named,) if named in COMMANDS else COMMANDS:
        importlib.import_module(f"director.cli.{command}").add_parser(subparsers)
    return parser


def _run_command(options: argparse.Namespace) -> int:
    from director._devices.option import on_command_line
    from director.errors import DirectorError

    termination = _Termination()
    try:
        with escape_logs_and_errors(), on_command_line(), termination:
            return int(options.run(options))
    except UsageError as error:
        print_error(f"{error.detail}director {options.command}: {error}")
        return error.status
    except (DirectorError, OutputError) as error:
        print_error(f"director {options.command}: {error}")
        return FAILED
    except KeyboardInterrupt:
        return TERMINATED if termination.has_come else INTERRUPTED
    except BrokenPipeError:
        _drop_output(sys.stdout)
        return READER_GONE
    except Exception as error:  # noqa: BLE001 -- printed as Python would, with control characters escaped
        print_error(trace_of(error))
        return FAILED


class _Termination:
    """SIGTERM within the block does what Ctrl-C does: processes are ended, and a terminal is left as it was."""

    has_come = False

    def __enter__(self) -> None:
        is_main, self._before = current_thread() is main_thread(), signal.getsignal(signal.SIGTERM)
        self._is_ours = is_main and self._before == signal.SIG_DFL
        if self._is_ours:
            signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTERM, self._before)

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        self.has_come = True
        interrupt = signal.getsignal(signal.SIGINT)  # of `asyncio.run`, while that runs
        if not callable(interrupt):  # Ctrl-C is ignored
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)


def _flushed(status: int) -> int:
    """`status`, or why not all of the output was written; messages may be lost."""
    try:
        sys.stderr.flush()
    except OSError:
        _drop_output(sys.stderr)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output(sys.stdout)
        return READER_GONE
    except OSError as error:
        _drop_output(sys.stdout)
        if status == DONE:
            print_error(f"director: {OutputError(error)}")
        return status or FAILED
    return status


def _drop_output(stream: TextIO) -> None:
    """Keep the interpreter from flushing into the broken pipe again when it exits."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
