"""The parent's hold on one child process. Used by the slot's thread alone; only on its `board` any thread may post.

What goes to the child: requests over a socket whose other end the parent keeps too, to see (and take back) what the
child has not taken yet. What comes back: answers over a pipe that only the child can write to, so that its end is the
child's end.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import termios
import time
from array import array
from collections import deque
from contextlib import ExitStack, suppress
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any

from director._executors._process import spawn
from director._executors._process.board import SIZE, Board
from director._executors._process.flow import Credits
from director._executors._process.pace import MOST
from director._executors._process.segments import Arrivals, Shipments
from director._executors._process.unyielding import Reader, send
from director._executors._process.wire import EMPTY, FRAME, ROOM_IN_REQUEST, Answer, head_of, read_answers, request
from director._forks import watch

if TYPE_CHECKING:
    from director._device import Device
    from director._executors._process.call import Letter

_READ = 1 << 16  # bytes: what a pipe holds
_REAPING = 5.0  # seconds between a child's last word and its end, in which a driver lets go of a GPU


class ChildGone(Exception):
    """The child has ended."""


class Child:
    """One child process.

    Args:
        device: Which it is for.
        bell: An eventfd: whoever writes to it wakes the thread that waits for an answer.

    Raises:
        OSError: The system can't start another process.
    """

    def __init__(self, device: Device, bell: int) -> None:
        self.calls = 0  # requests that were sent and not taken back
        self.numbers = count()  # for requests: one that is taken back leaves its number to nobody
        self.is_ready = False
        self.read_at = 0.0  # when the last answers were read, by the monotonic clock
        self.met: set[int] = set()  # numbers of the functions that it has
        self.loaded: set[int] = set()  # and of the models
        self._bell = bell
        self._arrived: deque[Answer] = deque()
        with ExitStack() as opened:  # closes everything if the start fails
            self._start(device, opened)
            self._opened = opened.pop_all()
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        self._poll.register(bell, select.POLLIN)
        self._was_let_be = False  # there may be many answers
        self._reader = Reader(self._answers)
        self._poll_for_ends = select.poll()
        self._poll_for_ends.register(self._answers, 0)  # its end is always told
        self._poll_for_ends.register(bell, select.POLLIN)
        watch(self._be_forked)

    def _start(self, device: Device, opened: ExitStack) -> None:
        with ExitStack() as passed:  # what only the child keeps
            self._ours, self._theirs = (_held_socket(end, opened) for end in socket.socketpair())
            control, their_control = socket.socketpair()
            control, their_control = _held_socket(control, opened), _held_socket(their_control, passed)
            answers, their_answers = os.pipe()
            self._answers, their_answers = _held(answers, opened), _held(their_answers, passed)
            board = _held(os.memfd_create("director", os.MFD_CLOEXEC), passed)
            os.ftruncate(board, SIZE)
            self.board = Board(board)
            self._shipments, self._arrivals = Shipments(control), Arrivals(control)
            opened.callback(self._shipments.close)
            opened.callback(self._arrivals.close)
            credits = _held(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE), opened)
            self.credits = Credits(credits)
            inherited = {
                "inbox": self._theirs.fileno(),
                "control": their_control.fileno(),
                "answers": their_answers,
                "board": board,
                "credits": credits,
            }
            self._process = spawn.start(device, inherited)

    @property
    def process(self) -> int:
        """Its process id."""
        return self._process.pid

    # ---- to the child

    def frame(self, letter: Letter, number: int) -> bytes:
        """A request, to be posted.

        Raises:
            ChildGone: A large one can't be sent, for nobody is there any more to take it.
            OSError: There is no memory, or no descriptor, for a large one.
        """
        kind, function, model, facts, parcel = letter
        try:
            load = EMPTY if parcel is None else self._shipments.send(parcel, ROOM_IN_REQUEST)
        except ConnectionError as error:
            raise ChildGone from error
        self.calls += 1
        return request(kind, self._arrivals.take_freed(), number, function, model, facts, load)

    def post(self, frames: bytes) -> None:
        """Send requests, in the order in which they were made."""
        self._ours.sendall(frames)

    def post_at_once(self, frames: bytes) -> None:
        """The same, keeping the GIL."""
        send(self._ours, frames)

    def has_taken(self, place: int) -> bool:
        """Whether it has taken the request that was sent after `place` others."""
        waiting = array("i", [0])
        fcntl.ioctl(self._theirs, termios.FIONREAD, waiting)
        return place < self.calls - waiting[0] // FRAME

    def take_back(self, kept: int) -> set[int]:
        """Take back what it has not taken of the requests after the number `kept`; returns their numbers."""
        waiting = bytearray()
        with suppress(BlockingIOError):
            while chunk := self._theirs.recv(FRAME * MOST, socket.MSG_DONTWAIT):
                waiting += chunk
        stays, numbers = b"", set()
        for start in range(0, len(waiting), FRAME):
            frame = bytes(waiting[start : start + FRAME])
            _, freed, *_, number = head_of(frame)
            if number <= kept:
                stays += frame
                continue
            self._arrivals.put_back(freed)
            numbers.add(number)
        if stays:
            self.post(stays)
        self.calls -= len(numbers)
        return numbers

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, after notice that it comes from us."""
        self.board.end()
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    # ---- from the child

    @property
    def has_answers(self) -> bool:
        """Whether some have been read and not looked at."""
        return bool(self._arrived)

    def answer(self, timeout: float | None) -> Answer | None:
        """The next answer; `None` after `timeout` seconds, or when the bell was rung.

        Raises:
            ChildGone: There is none left, and will be none.
        """
        if not self._arrived:
            self._read(timeout)
        if not self._arrived:
            return None
        answer = self._arrived.popleft()
        if answer.freed:
            self._shipments.freed(answer.freed)
        return answer

    def let_be(self, seconds: float) -> None:
        """Don't look at its answers for so long, unless the bell is rung or the child ends.

        Each answer would wake us, most likely on the core on which the child is about to take its next call.
        """
        if milliseconds := int(seconds * 1000):
            self._poll_for_ends.poll(milliseconds)
            self._was_let_be = True

    def content(self, answer: Answer) -> Any:
        """What an answer carries.

        Raises:
            BaseException: It can't be unpickled here.
        """
        return None if answer.load is EMPTY else self._arrivals.receive(answer.load)

    def bury(self) -> int | None:
        """After its last answer: wait for the process, let go of everything, return the exit code; `None` if it stays.

        A process that has closed its pipe, and nothing else, is killed.
        """
        code: int | None = None
        for last in (signal.SIGKILL, None):
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_REAPING)
                break
            if last is not None:
                self.signal(last)
        self.close()
        return code

    def close(self) -> None:
        """Let go of what belongs to the child; one that is alive ends by itself when its inbox is closed."""
        self._opened.close()

    def _be_forked(self, _origin: int) -> None:
        """In a process that was forked from the parent: it has no children here."""
        self._process.returncode = 0  # or it would be asked for, and complained of
        self.close()

    def _read(self, timeout: float | None) -> None:
        for descriptor, _ in self._poll.poll(None if timeout is None else max(0, ceil(timeout * 1000))):
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
            elif chunk := self._reader.read() if self._was_let_be else os.read(self._answers, _READ):
                self._was_let_be = False
                self.read_at = time.monotonic()
                self._arrived.extend(read_answers(chunk))
            else:
                raise ChildGone


def _held(descriptor: int, stack: ExitStack) -> int:
    descriptor = spawn.above_stdio(descriptor)
    stack.callback(os.close, descriptor)
    return descriptor


def _held_socket(end: socket.socket, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.socket(fileno=spawn.above_stdio(end.detach())))
