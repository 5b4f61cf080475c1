"""One child process, as its parent has it. For the slot's thread only; any thread may post to its `page`.

docs/explanation/wire.md describes the messages, and how the parent knows which calls have begun.
"""

from __future__ import annotations

import marshal
import os
import pickle
import select
import signal
import socket
import time
from contextlib import ExitStack, suppress
from math import ceil
from typing import TYPE_CHECKING, Any, TypeAlias

from director._executors.process import spawn
from director._executors.process.encoding import fits
from director._executors.process.os_process import OsProcess
from director._executors.remote.calls import CallState, PendingCall
from director._ipc import shared_memory as segments
from director._ipc.channel import Receiver, close_all, send, send_all, wake_at_once
from director._ipc.frames import (
    CONTENT,
    INLINE,
    Answer,
    AnswerKind,
    RequestKind,
    WireBroken,
    read_answer,
    renumbered,
    request,
    request_head,
)
from director._ipc.protocol import NO_FACTS, UNNUMBERED, CallStyle
from director._ipc.shared_page import SIZE, WINDOW, Notice, SharedPage
from director._system.forks import watch

if TYPE_CHECKING:
    from director._device import Device
    from director._executors.process.encoding import CallMessage, ProcessCall


ChildCall: TypeAlias = "ProcessCall[ChildProcess]"
_REAPING = 5.0  # seconds between a child's last message and its exit, in which the driver releases the GPU
_ROOM = 8 * INLINE  # bytes that a socket buffers, if the system allows it
_DAY = 86_400.0  # seconds; 25 days in milliseconds overflow a C int
_HALF = WINDOW // 2
_FINAL = frozenset({AnswerKind.RETURNED, AnswerKind.RAISED, AnswerKind.NOT_LOADED, AnswerKind.NOT_READ})
_PICKLED = frozenset({AnswerKind.RETURNED, AnswerKind.YIELDED, AnswerKind.REPORTED})
_QUEUED, _SENT, _BEGUN, _ENDED, _LOST = CallState


class ChildGone(Exception):
    """The child has ended and sends no more answers."""


class ChildProcess:
    """One child process.

    Args:
        device: Its device.
        wakeup: An eventfd: a write to it wakes the thread that waits for an answer.
        children: How many children share the machine's cores.

    Raises:
        OSError: The system can't start another process.
    """

    def __init__(self, device: Device, wakeup: int, children: int = 1) -> None:
        self.count = 0  # calls that were sent and not taken back
        self.is_ready = False
        self.exitcode: int | None = None  # of the process, once it has been reaped
        self.read_at = 0.0  # when the last answer was received, by the monotonic clock
        self.known: set[int] = set()  # numbers of the functions that it has
        self._wakeup = wakeup
        self._number = 0  # of the last call
        self._received = 0  # answers
        self._under_way: dict[int, ChildCall] = {}  # by number, oldest first: sent, and without a last answer
        self._has_ended = False
        with ExitStack() as opened:  # closes everything if the start fails
            self._start(device, children, opened)
            self._opened = opened.pop_all()
        self._poll, self._poll_for_end = select.poll(), select.poll()
        self._poll.register(self._answers, select.POLLIN)
        self._poll_for_end.register(self._answers, 0)  # reports a hang-up only
        for descriptor in (wakeup, self._process.pidfd):
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)
                self._poll_for_end.register(descriptor, select.POLLIN)
        watch(self._be_forked)

    def _start(self, device: Device, children: int, opened: ExitStack) -> None:
        with ExitStack() as passed:  # closed here once the child has them
            self._requests, self._inbox = _pair(opened, opened)
            self._answers, their_answers = _pair(opened, passed)
            self._receiver, self._inbox_receiver = (Receiver(end) for end in (self._answers, self._inbox))
            opened.callback(self._receiver.close)
            page = _held(os.memfd_create("director", os.MFD_CLOEXEC), passed)
            os.ftruncate(page, SIZE)
            self._wake = _held(os.eventfd(0, os.EFD_CLOEXEC), opened)
            with ExitStack() as failing:
                self.page = SharedPage(page)
                failing.callback(self.page.close)  # not in `close`: the event loop may post at any time
                inherited = {
                    "inbox": self._inbox.fileno(),
                    "answers": their_answers.fileno(),
                    "page": page,
                    "wake": self._wake,
                }
                self._process = OsProcess(device, inherited, children)
                failing.pop_all()
        opened.callback(self._process.close)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    # ---- to the child

    def send(self, call: ChildCall, message: CallMessage) -> None:
        """Send a call. If it raises, the call was not sent.

        Raises:
            BlockingIOError: There is no room for it now.
            OSError: There is no memory, or no descriptor, for it.
        """
        kind, function, model, facts, tenant, payload = message
        head = kind, call.style, function, model, facts, tenant
        if payload is None:
            self._post(call, request(*head))
        elif fits(payload, tenant):
            self._post(call, request(*head, 0, payload.stream))
        else:
            with segments.filled(payload) as (descriptor, length):
                self._post(call, request(*head, length), descriptor)

    def send_prefetched(self, calls: list[tuple[ChildCall, CallMessage]]) -> int:
        """Prefetch calls without segments; returns how many there was room for. The others were not sent."""
        wholes = []
        for call, (kind, function, model, facts, tenant, payload) in calls:
            content = b"" if payload is None else payload.stream
            wholes.append(self._numbered(call, request(kind, call.style, function, model, facts, tenant, 0, content)))
        sent = send_all(self._requests, wholes)
        for call, _ in calls[:sent]:
            self._note_sent(call)
        return sent

    def _post(self, call: ChildCall, whole: bytes, descriptor: int = -1) -> None:
        """Number a request, and send it."""
        send(self._requests, self._numbered(call, whole), descriptor)
        self._note_sent(call)

    def _numbered(self, call: ChildCall, whole: bytes) -> bytes:
        self._number = call.number = self._number + 1
        call.child = self  # from here on the event loop can notify the call; `is_unwanted` has what came before
        if call.is_unwanted:
            self.page.post(call.number, Notice.CANCELLED)
        return renumbered(call.number, whole)

    def _note_sent(self, call: ChildCall) -> None:
        self._under_way[call.number] = call
        self.count += 1
        call.move(_SENT)

    def dismiss(self) -> None:
        """Have it unload its models and exit after its calls."""
        self._number += 1
        whole = request(RequestKind.EXIT, CallStyle.PLAIN, UNNUMBERED, UNNUMBERED, NO_FACTS)
        send(self._requests, renumbered(self._number, whole))

    def is_waiting(self, call: PendingCall) -> bool:
        """Whether the child has not received the message of a call."""
        with suppress(BlockingIOError):
            head = self._inbox.recv(CONTENT, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return bool(request_head(head)[0] <= call.number)
        return False

    def take_back(self, current: ChildCall | None = None) -> list[ChildCall]:
        """Take back all calls that the child has not received, and send `current` again if it is one of them.

        Both sides read the same socket, so each message is received by exactly one of them.

        Returns:
            The calls that are QUEUED again.

        Raises:
            WireBroken: A message is not what was sent.
        """
        returned: list[ChildCall] = []
        again: tuple[bytes, list[int]] | None = None
        try:
            while (received := self._inbox_receiver.receive()) is not None:
                whole, descriptors = received
                number, kind, *_ = request_head(whole)
                if kind == RequestKind.EXIT:
                    continue
                call = self._under_way.pop(number, None)
                if call is None:
                    close_all(descriptors)
                    raise WireBroken(f"a request for call {number}, which is not under way, was taken back")
                self.count -= 1
                call.move(_QUEUED)
                if call is current:
                    again = bytes(whole), descriptors
                else:
                    close_all(descriptors)
                    returned.append(call)
            if again is not None and current is not None:
                self._post(current, again[0], *again[1])
        finally:
            close_all(again[1] if again is not None else [])
        return returned

    def grant(self, call: ChildCall, answer: Answer) -> None:
        """Grant the units of a value that was taken from a stream; wakes the child for each half of the window."""
        before, call.taken = call.taken, call.taken + 1 + answer.segments
        self.page.take(call.number, call.taken)
        if before // _HALF != call.taken // _HALF:  # a child waits with a full window, so this will happen
            wake_at_once(self._wake)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, marked on the page as the parent's."""
        self.page.end()
        self._process.signal(number)

    # ---- from the child

    def receive(self, is_one_of_many: bool = False) -> tuple[Answer, ChildCall | None] | None:
        """The next answer that has arrived, and its call if that is under way; `None` if there is no answer.

        A last answer ends its call.

        Args:
            is_one_of_many: There may be several: receive all at once.

        Raises:
            ChildGone: The child has ended, and there are no more answers.
            WireBroken: The answer is invalid or out of order.
        """
        received = self._receiver.receive_at_once() if is_one_of_many else self._receiver.receive()
        if received is None:
            if self._has_ended:
                raise ChildGone
            return None
        whole, descriptors = received
        if not whole:
            raise ChildGone
        try:
            self.read_at = time.monotonic()
            answer = read_answer(whole, descriptors)
            if answer.sequence != self._received:
                raise WireBroken(f"answer {answer.sequence} came instead of {self._received}")
            self._received += 1
            call = self._find(answer)
        except BaseException:
            close_all(descriptors)
            raise
        return answer, call

    def _find(self, answer: Answer) -> ChildCall | None:
        number = answer.number
        call = self._under_way.get(number)
        if answer.kind in _FINAL:
            if call is None or number != next(iter(self._under_way)):
                raise WireBroken(f"a last answer for call {number}, which is not the oldest one")
            del self._under_way[number]
            call.move(_ENDED)
        elif call is not None and call.state is _SENT:
            call.move(_BEGUN)
        return call

    def wait(self, timeout: float | None) -> None:
        """Wait for an answer, a wake-up or the child's exit; for `timeout` seconds, a day at most."""
        milliseconds = None if timeout is None else max(0, ceil(min(timeout, _DAY) * 1000))
        for descriptor, _ in self._poll.poll(milliseconds):
            if descriptor == self._wakeup:
                os.eventfd_read(self._wakeup)
            elif descriptor == self._process.pidfd:
                self._has_ended = True  # all its answers have arrived

    def sleep_until_exit(self, seconds: float) -> None:
        """Don't read answers for so long, unless woken or the child exits.

        Each answer would wake this thread, probably on the core on which the child is about to make its next call.
        """
        if milliseconds := int(seconds * 1000):
            self._poll_for_end.poll(milliseconds)

    @staticmethod
    def content(answer: Answer) -> Any:
        """The content of an answer.

        Raises:
            BaseException: It can't be unpickled here.
        """
        content = segments.read(answer.descriptor, answer.length) if answer.segments else answer.content
        if answer.kind not in _PICKLED:
            return marshal.loads(content) if content else None  # noqa: S302 - our own child's
        if answer.segments:
            return content
        return pickle.loads(content) if content else None  # noqa: S301 - the same

    @staticmethod
    def drop(answer: Answer) -> None:
        """Drop an answer for a call that has ended."""
        if answer.descriptor >= 0:
            os.close(answer.descriptor)

    # ---- its end

    def lose(self) -> list[ChildCall]:
        """After its last answer: returns the calls that had not begun, QUEUED again; the others are LOST."""
        returned: list[ChildCall] = []
        with suppress(WireBroken):  # then the remaining messages are unknown
            returned = self.take_back()
        for call in self._under_way.values():
            if call.state is _SENT:
                call.move(_BEGUN)
            call.move(_LOST)
        self._under_way.clear()
        return returned

    def reap(self) -> int | None:
        """Wait for the process, kill its descendants, close everything; returns the exit code, `None` if it stays.

        A process that has closed its sockets, and nothing else, is killed.
        """
        if not self._process.has_exited(_REAPING):
            self.signal(signal.SIGKILL)
        if self._process.has_exited(_REAPING):
            self.exitcode = self._process.reap()
        self.close()
        return self.exitcode

    def close(self) -> None:
        """Close all descriptors; a child that is alive exits when its inbox is closed."""
        self._opened.close()

    def _be_forked(self, _origin: int) -> None:
        """In a forked copy of the parent: it has no children here."""
        self._process.be_forked()
        self.close()


def _pair(*stacks: ExitStack) -> list[socket.socket]:
    """The two ends of a socket pair, each owned by a stack from the start."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end, stack in zip(ends, stacks, strict=True):
        stack.enter_context(end)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return [
        stack.enter_context(socket.socket(fileno=spawn.above_stdio(end.detach())))
        for end, stack in zip(ends, stacks, strict=True)
    ]


def _held(descriptor: int, stack: ExitStack) -> int:
    descriptor = spawn.above_stdio(descriptor)
    stack.callback(os.close, descriptor)
    return descriptor
