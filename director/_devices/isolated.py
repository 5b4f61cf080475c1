"""Runs calls that may hang: on a daemon thread that is not joined, or in a short-lived child process."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from director._system.launched import interpreter
from director._system.threads import NoThreadsHere, start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CallTimedOut(Exception):
    """A call did not return in time."""


def extra_wait(seconds: float) -> float:
    """How long to wait once more, after a wait of `seconds` has timed out.

    This process may have been stopped for most of that time, as by SIGSTOP, a suspended machine or a frozen container,
    while the clock went on. Then the result comes shortly afterwards.
    """
    return min(seconds, 1.0)


class NoThread(Exception):
    """The system can't start another thread."""


def on_thread(seconds: float, call: Callable[[], T], name: str) -> T:
    """Make a call on a daemon thread of its own and wait for its result.

    Args:
        seconds: How long to wait. A call that hangs keeps its thread, which does not keep the process from exiting.
        call: What to call.
        name: The thread's name.

    Raises:
        NoThread: `call` was not called.
        NoThreadsHere: The same, in a subinterpreter.
        CallTimedOut: `call` did not return in time.
        BaseException: Whatever `call` raises.
    """
    outcome: Future[T] = Future()
    try:
        start_daemon(_run_call, (outcome, call), name)
    except NoThreadsHere:
        raise
    except (RuntimeError, MemoryError) as error:
        raise NoThread(str(error)) from error
    for limit in (seconds, extra_wait(seconds)):
        try:
            return outcome.result(limit)
        except TimeoutError:
            if outcome.done():  # raised by the call itself
                raise
    raise CallTimedOut


def _run_call(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # noqa: BLE001 (belongs to the thread that waits)
        outcome.set_exception(error)


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """The result of a script.

    Args:
        stdout: What it wrote to stdout until it ended or was killed.
        stderr: The same of stderr.
        exitcode: Negative for a signal; `None` if its time was up and it was killed.
    """

    stdout: str
    stderr: str
    exitcode: int | None

    @property
    def last_error_line(self) -> str:
        """The last line of its stderr, after a colon; empty if there is none."""
        return "".join(f": {line}" for line in self.stderr.splitlines()[-1:])


def run_script(name: str, *args: str, timeout: float, **env: str) -> ScriptResult:
    """Run a script of the folder `scripts` in a bare interpreter. Blocks until it has ended or its time is up.

    Args:
        name: Its file's name.
        args: Its arguments.
        timeout: Seconds it may take.
        env: Variables of the environment that differ from ours.

    Raises:
        OSError: No process can be started, or this program is no plain Python that could start another one.
    """
    if getattr(sys, "frozen", False) or not interpreter():
        raise OSError("this program is no plain Python that could start another one")
    child = _start(name, args, env)
    stdout: str | bytes | None = None
    stderr: str | bytes | None = None
    try:
        for limit in (timeout, extra_wait(timeout)):
            try:
                stdout, stderr = child.communicate(timeout=limit)
                break
            except subprocess.TimeoutExpired as late:
                stdout, stderr = late.output, late.stderr
        return ScriptResult(_text(stdout), _text(stderr), child.returncode)
    finally:
        _abandon(child)


def _start(name: str, args: tuple[str, ...], env: dict[str, str]) -> subprocess.Popen[str]:
    script = pkgutil.get_data("director._devices.scripts", name) or b""
    return subprocess.Popen(  # noqa: S603 (our own interpreter and source)
        [interpreter(), "-I", "-S", "-c", script.decode(), *args],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def _abandon(child: subprocess.Popen[str]) -> None:
    """Kill a child and don't wait for it.

    It may be blocked in the driver, where a kill takes effect only afterwards.
    """
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    if child.returncode is None:
        child.kill()
        with suppress(RuntimeError, MemoryError):  # otherwise `subprocess` reaps it when it starts another child
            threading.Thread(target=child.wait, name="director-reaper", daemon=True).start()


def _text(got: str | bytes | None) -> str:
    """The output as text: of a killed child it comes as bytes."""
    return got.decode(errors="replace") if isinstance(got, bytes) else got or ""
