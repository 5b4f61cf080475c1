"""What may hang is done apart: on a thread that nobody joins, or in a process that is thrown away."""

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

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Overdue(Exception):
    """A call did not come back in time."""


def last_second(seconds: float) -> float:
    """How long to wait on, once, for what did not come in so many seconds.

    This process may have been stopped for most of them, as by SIGSTOP, with its machine or as a frozen container, while
    the clock went on. Then what is waited for comes in a moment.
    """
    return min(seconds, 1.0)


class NoThread(Exception):
    """The system can't start another thread."""


def on_thread(seconds: float, call: Callable[[], T], name: str) -> T:
    """Make a call on a daemon thread of its own and wait for its result.

    Args:
        seconds: How long to wait. A call that hangs keeps its thread, which does not keep the process.
        call: What to call.
        name: The thread's name.

    Raises:
        NoThread: `call` was not called.
        Overdue: `call` did not come back in time.
        BaseException: Whatever `call` raises.
    """
    outcome: Future[T] = Future()
    try:
        threading.Thread(target=_settle, args=(outcome, call), name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        raise NoThread(str(error)) from error
    for patience in (seconds, last_second(seconds)):
        try:
            return outcome.result(patience)
        except TimeoutError:
            if outcome.done():  # the call's own TimeoutError
                raise
    raise Overdue


def _settle(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # noqa: BLE001 (belongs to the thread that waits)
        outcome.set_exception(error)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a script did.

    Args:
        output: What it wrote to stdout, as far as it got.
        complaint: The same of stderr.
        exitcode: Negative for a signal; `None` if its time was up and it was killed.
    """

    output: str
    complaint: str
    exitcode: int | None

    @property
    def last_words(self) -> str:
        """The last line of what it complained of, after a colon."""
        return "".join(f": {line}" for line in self.complaint.splitlines()[-1:])


def run_script(name: str, *args: str, timeout: float, **env: str) -> Ended:
    """Run a script of the folder `scripts` in a bare interpreter. Blocks until it has ended or its time is up.

    Args:
        name: Its file's name.
        args: Its arguments.
        timeout: Seconds it may take.
        env: Variables of the environment that differ from ours.

    Raises:
        OSError: No process can be started, or this program is no plain Python that could start another one.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise OSError("this program is no plain Python that could start another one")
    child = _start(name, args, env)
    output: str | bytes | None = None
    complaint: str | bytes | None = None
    try:
        for patience in (timeout, last_second(timeout)):
            try:
                output, complaint = child.communicate(timeout=patience)
                break
            except subprocess.TimeoutExpired as late:
                output, complaint = late.output, late.stderr
        return Ended(_text(output), _text(complaint), child.returncode)
    finally:
        _abandon(child)


def _start(name: str, args: tuple[str, ...], env: dict[str, str]) -> subprocess.Popen[str]:
    script = pkgutil.get_data("director._devices.scripts", name) or b""
    return subprocess.Popen(  # noqa: S603 (our own interpreter and source)
        [sys.executable, "-I", "-S", "-c", script.decode(), *args],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def _abandon(child: subprocess.Popen[str]) -> None:
    """Let go of a child that may be stuck in the kernel, where a kill only works once the driver lets go of it."""
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    if child.returncode is None:
        child.kill()
        with suppress(RuntimeError, MemoryError):  # else `subprocess` asks for it when it starts the next one
            threading.Thread(target=child.wait, name="director-reaper", daemon=True).start()


def _text(got: str | bytes | None) -> str:
    """What a child had written by the time it was killed, which comes undecoded."""
    return got.decode(errors="replace") if isinstance(got, bytes) else got or ""
