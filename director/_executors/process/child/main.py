"""The main loop of a child: receive a request, make the call, send the outcome. On the main thread."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pickle import loads
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from director._executors.process.child.answer_writer import AnswerWriter
from director._executors.remote.replicas import NotLoaded
from director._executors.remote.worker import CallInfo, RemoteWorker
from director._ipc import shared_memory as segments
from director._ipc import spawn_state
from director._ipc.by_name import describe
from director._ipc.channel import CUT, KEPT, ROOM, descriptors_of
from director._ipc.frames import CONTENT, LONGEST, AnswerKind, RequestKind, request_head
from director._ipc.log_relay import redirect
from director._ipc.main_module import LazyMainModule, explain
from director._ipc.protocol import UNNUMBERED, CallStyle, Facts
from director._ipc.shared_page import SharedPage
from director._jobs.current import here
from director._untrusted.callables import SUSPENDED, explain_resource, refuse_suspended

if TYPE_CHECKING:
    from director._devices.footprints import LoadSize
    from director._executors.remote.replicas import ModelSpec

_PR_SET_PDEATHSIG = 1
_NONE: list[int] = []
_SEGMENTS, _MODEL, _LENGTH = 2, 5, 6  # in the head of a request
_BROKEN = 70  # exit status: EX_SOFTWARE
# Looking up an enum member is slow.
_CALL, _EXIT, _BATCH, _AS_GIVEN = RequestKind.CALL, RequestKind.EXIT, CallStyle.BATCH, CallStyle.PLAIN
_RETURNED, _RAISED, _YIELDED = AnswerKind.RETURNED, AnswerKind.RAISED, AnswerKind.YIELDED


def main(facts: dict[str, Any]) -> None:
    """Serve the parent until it sends EXIT, or has ended.

    Args:
        facts: Written by `spawn` in the parent.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the mask of the thread that has started this process
    for name in ("inbox", "answers", "page", "wake", "sentinel"):
        os.set_inheritable(facts[name], False)  # not for processes that a job starts
    _end_with(facts["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to the terminal's whole group; the parent decides
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or the exit codes of programs that a job starts are lost
    spawn_state.adopt(facts, loads(facts["device"]).label)  # noqa: S301 - from our parent
    LazyMainModule(facts["main"]).install()
    ChildMain(facts).serve()


class ChildMain(RemoteWorker):
    """One child."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._parent: int = facts["parent"]
        self._process = os.getpid()
        self._inbox = socket.socket(fileno=facts["inbox"])
        self._answers = socket.socket(fileno=facts["answers"])
        self._page = SharedPage(facts["page"])
        super().__init__(self._page)
        self._set_device(loads(facts["device"]), self._loaded)  # noqa: S301 - from our parent
        os.close(facts["page"])
        self._wake: int = facts["wake"]
        self._writer = AnswerWriter(self._answers)
        self._context = copy_context()  # each call gets a copy: what it sets is gone with it
        self._known: dict[int, tuple[Any, str]] = {}  # functions and their names, by number
        self._number = 0  # of the last call
        self._head: tuple[Any, ...] | None = None  # of the current request
        self._inline = memoryview(b"")  # what is behind it
        self._name = ""
        here.running = self  # type: ignore[assignment]  # for the main thread; its jobs are `WorkerJob`s
        signal.signal(signal.SIGTERM, self._terminate)
        os.register_at_fork(after_in_child=self._be_forked)
        redirect(facts["levels"], lambda record: self._writer.send_plain(AnswerKind.LOGGED, 0, record))

    def serve(self) -> None:
        """Serve requests until EXIT, or the end of the parent."""
        self._writer.send_value(AnswerKind.READY, 0)
        memory = bytearray(LONGEST)
        view, pieces, serve, receive = memoryview(memory), [memory], self._serve, self._inbox.recvmsg_into
        while True:  # as `Receiver.receive`, inlined; see `_serve`
            size, control, flags, _ = receive(pieces, ROOM, KEPT)
            if not size:
                break
            head = request_head(memory)
            descriptors = descriptors_of(control[0][2]) if control else _NONE
            if size < CONTENT or flags & CUT or head[0] <= self._number or len(descriptors) > head[2]:
                _break(f"a message of {size} bytes with {len(descriptors)} descriptors came after call {self._number}")
            self._number = head[0]
            if head[1] == _EXIT:
                break
            serve(head, view[CONTENT:size], descriptors)
        self._replicas.clear()

    # ---- the call that runs

    def _call_info(self) -> CallInfo | None:
        head = self._head
        if head is None:
            return None
        tenant = bytes(self._inline[0 if head[_SEGMENTS] else head[_LENGTH] :])
        return CallInfo(self._number, head[_MODEL], self._name, Facts(*head[-4:]), tenant)

    def _send_report(self, told: Any) -> None:
        self._writer.send_value(AnswerKind.REPORTED, self._number, told)

    # ---- one request

    def _serve(self, head: tuple[Any, ...], inline: memoryview, descriptors: list[int]) -> None:
        """Make the call of a request. With prefetched calls, this is all that runs between two calls.

        The call has evicted this code from the CPU caches, so few steps matter more than quick ones.
        """
        number, kind, count, style, function, model, length, *_ = self._head = head
        self._inline = inline
        began, failure = monotonic(), AnswerKind.NOT_READ
        try:
            if count:
                content = segments.read(descriptors[0] if descriptors else -1, length)
            else:  # `loads` does not read what is behind the pickle
                content = loads(inline) if length else ()  # noqa: S301 - from our parent
            failure = _RAISED
            try:
                if kind == _CALL:
                    fn, self._name = self._known[function]
                    if model == UNNUMBERED and self._cuda is None and not self._page.look(number):
                        value = self._context.copy().run(fn, self._device, *content)
                    else:
                        value = self._context.copy().run(self._call_function, number, fn, content, model, None, False)
                else:
                    fn = content[0]
                    value = self._context.copy().run(self._first_call, function, model, style, *content)
            except TypeError as error:
                if style != _AS_GIVEN:
                    explain_resource(error, fn, "device" if model == UNNUMBERED else "replica", style == _BATCH)
                raise
            content = None  # the arguments are not kept alive while the result is sent
            if type(value) in SUSPENDED and style != _AS_GIVEN:
                refuse_suspended(value, self._name)
            if style == _BATCH:
                value = self._apart(value)
            self._writer.send_value(_RETURNED, number, value, began, monotonic())
        except NotLoaded as error:
            self._fail(AnswerKind.NOT_LOADED, number, error.error, began)
        except BaseException as error:  # noqa: BLE001 - all errors belong to the caller
            self._fail(failure, number, error, began)
        finally:
            self._head = self._job = None

    def _first_call(
        self, function: int, model: int, style: int, fn: Any, name: str, args: Any, spec: ModelSpec | None
    ) -> Any:
        """A call whose function may be new here."""
        self._name = name
        if function != UNNUMBERED:
            self._known[function] = fn, name
        if style == CallStyle.STREAM:
            fn = partial(self._stream, self._number, fn)
        return self._call_function(self._number, fn, args, model, spec, style == CallStyle.PLAIN)

    def _stream(self, number: int, fn: Any, *args: Any) -> None:
        from director._executors.process.child.streaming import run_generator  # few children need it

        def send(value: Any) -> int:
            if self._cuda is not None:
                self._cuda.wait()  # as each result, a value is sent when the device has computed it
            return self._writer.send_value(_YIELDED, number, value)

        run_generator(fn(*args), self._page, number, self._wake, send)

    def _fail(self, kind: AnswerKind, number: int, error: BaseException, began: float) -> None:
        if self._page.is_ending and isinstance(error, SystemExit):
            raise error  # raised by `_terminate`
        if self._writer.answered == number:
            return  # raised after the last answer
        if kind == AnswerKind.NOT_READ:
            error = explain(error)
        ended = monotonic()
        self._writer.send_plain(kind, number, _packed_error(error), began, ended)

    def _apart(self, values: Any) -> Any:
        from director._executors.remote.batch_items import pack_items  # few children need it

        return pack_items(values, _packed_error)

    def _loaded(self, model: int, seconds: float, taken: LoadSize | None) -> None:
        self._writer.send_plain(
            AnswerKind.LOADED, self._number, (model, seconds, None if taken is None else tuple(taken))
        )

    # ---- the process

    def _terminate(self, number: int, _frame: object) -> None:
        """SIGTERM: raise SystemExit, if the parent sent it; else ignore it, as sent to the whole process group.

        If the parent has ended, end with the processes that jobs have started.
        """
        if self._page.is_ending:
            raise SystemExit(128 + number)
        if os.getppid() != self._parent and os.getpid() == self._process:
            os.killpg(0, signal.SIGKILL)

    def _be_forked(self) -> None:
        """In a forked copy: close the sockets, or the parent would not see the end of this process."""
        self._answers.close()
        self._inbox.close()
        os.close(self._wake)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _packed_error(error: BaseException) -> Any:
    """An exception as it is sent."""
    try:
        from director._ipc.exceptions import free_caches, pack_error  # most children never need it

        packed = pack_error(error)
        if packed.fault is not None and packed.fault[0] == "memory":
            free_caches(error)
    except BaseException as refusal:  # noqa: BLE001 - nothing can be imported without descriptors, for example
        return b"", [], "", describe(error), describe(refusal), "", os.getpid()
    return tuple(packed)


def _break(reason: str) -> NoReturn:
    """The parent has broken the protocol: exit."""
    with suppress(Exception):
        sys.stderr.write(f"director: this process ends, for {reason}\n")
        sys.stderr.flush()
    os._exit(_BROKEN)


def _end_with(parent: int) -> None:
    """End when the parent does. The kernel kills the process group then, by the pipe ``"sentinel"``.

    Where something else holds the parent's end of the pipe (a copy of the parent that was forked by native code), the
    kernel sends SIGTERM to this process alone, and `ChildMain` ends the group.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended before
        sys.exit(1)
