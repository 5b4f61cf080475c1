"""The process of a child, as the operating system knows it: its start, signals to it, and its exit."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING

from director._executors.process import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director._device import Device

_F_SETSIG = 10  # of fcntl.h
_POLL = 0.002  # seconds between two checks for its exit, without a pidfd


class OsProcess:
    """A process that ends with this one, together with the programs that its jobs have started.

    It is waited for by its own id only, so the application's children are not touched.

    Args:
        device: The device of the child.
        descriptors: What it inherits, by the names that `child.main` uses.
        children: How many children share the machine's cores.

    Raises:
        OSError: The system can't start another process.
    """

    def __init__(self, device: Device, descriptors: Mapping[str, int], children: int) -> None:
        # The child gets the end of a pipe from which nothing is read. The other end is closed when this process ends.
        theirs, self._sentinel = os.pipe2(os.O_CLOEXEC)
        try:
            theirs = spawn.above_stdio(theirs)
            try:
                self._popen = spawn.start(device, {**descriptors, "sentinel": theirs}, children)
                _kill_when_closed(theirs, self.pid)
            finally:
                os.close(theirs)
        except BaseException:
            self._close_sentinel()
            raise
        try:
            self.pidfd = spawn.above_stdio(os.pidfd_open(self.pid))
        except OSError:  # the system has none
            self.pidfd = -1

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has exited."""
        with suppress(ProcessLookupError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    def has_exited(self, seconds: float) -> bool:
        """Wait for its exit, and kill the rest of its process group before its id can be reused."""
        until = time.monotonic() + seconds
        while True:
            try:
                status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # the application has waited for it: the id may be reused
                return True
            if status is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self.pidfd >= 0:
                poll = select.poll()
                poll.register(self.pidfd, select.POLLIN)
                poll.poll(ceil(left * 1000))
            else:
                time.sleep(_POLL)

    def reap(self) -> int:
        """The exit code of a process that has exited."""
        code = self._popen.wait()
        self._close_sentinel()  # not before: of a process that stays, this process keeps it until it ends itself
        return code

    def close(self) -> None:
        """Close the pidfd."""
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def be_forked(self) -> None:
        """In a forked copy of this process: it has no children here."""
        self._popen.returncode = 0  # or `Popen` would wait for it, and warn
        self._close_sentinel()
        self.close()

    def _close_sentinel(self) -> None:
        sentinel, self._sentinel = self._sentinel, -1
        if sentinel >= 0:
            os.close(sentinel)


def _kill_when_closed(descriptor: int, process: int) -> None:
    """Have the kernel kill the process group of a child when the other end of its pipe is closed, however that happens.

    It does so in whatever state the child is: stopped, in native code, or before it has run a line. With a signal for
    the death of its parent (`PR_SET_PDEATHSIG`) the child alone would be killed, and the programs that its jobs have
    started would live on.
    """
    with suppress(OSError):  # in sandboxes that lack it, a child ends its group itself; see `child.main`
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -process)
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
