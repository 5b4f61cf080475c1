"""The main loop of a child: receive a request, make the call, send the outcome. On the main thread."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pickle import loads
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn

from director._executors.cuda_thread import CudaThread
from director._executors.process.child.answer_writer import AnswerWriter
from director._executors.remote.job_view import WorkerJob
from director._executors.remote.replicas import NotLoaded, WorkerReplicas
from director._ipc import shared_memory as segments
from director._ipc.by_name import describe
from director._ipc.channel import CUT, KEPT, ROOM, descriptors_of
from director._ipc.frames import CONTENT, LONGEST, AnswerKind, RequestKind, request_head
from director._ipc.log_relay import redirect
from director._ipc.main_module import LazyMainModule
from director._ipc.protocol import UNNUMBERED, CallStyle, Facts
from director._ipc.shared_page import Notice, SharedPage
from director._jobs.current import here

if TYPE_CHECKING:
    from director._device import Device
    from director._executors.remote.replicas import ModelSpec

_PR_SET_PDEATHSIG = 1
_NONE: list[int] = []
_BROKEN = 70  # exit status: EX_SOFTWARE
# Looking up an enum member is slow.
_CALL, _EXIT, _BATCH = RequestKind.CALL, RequestKind.EXIT, CallStyle.BATCH
_RETURNED, _RAISED, _YIELDED = AnswerKind.RETURNED, AnswerKind.RAISED, AnswerKind.YIELDED


def main(facts: dict[str, Any]) -> None:
    """Serve the parent until it sends EXIT, or has ended.

    Args:
        facts: Written by `spawn` in the parent.
    """
    for name in ("inbox", "answers", "page", "wake"):
        os.set_inheritable(facts[name], False)  # not for processes that a job starts
    _exit_with(facts["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to the terminal's whole group; the parent decides
    LazyMainModule(facts["main"]).install()
    ChildMain(facts).serve()


class ChildMain:
    """One child; also the `CurrentCall` of its jobs (`director._jobs.current`)."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._device: Device = loads(facts["device"])  # noqa: S301 - from our parent
        self._inbox = socket.socket(fileno=facts["inbox"])
        self._answers = socket.socket(fileno=facts["answers"])
        self._page = SharedPage(facts["page"])
        os.close(facts["page"])
        self._wake: int = facts["wake"]
        self._writer = AnswerWriter(self._answers)
        self._replicas = WorkerReplicas(self._device, self._loaded)
        self._cuda = CudaThread(0, own_stream=False) if self._device.kind == "cuda" else None
        self._known: dict[int, tuple[Any, str]] = {}  # functions and their names, by number
        self._number = 0  # of the last call
        self._head: tuple[Any, ...] | None = None  # of the current request
        self._name = ""
        self._job: WorkerJob | None = None  # made when needed
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
            size, control, told, _ = receive(pieces, ROOM, KEPT)
            if not size:
                break
            head = request_head(memory)
            descriptors = descriptors_of(control[0][2]) if control else _NONE
            if size < CONTENT or told & CUT or head[0] <= self._number or len(descriptors) > head[2]:
                _break(f"a message of {size} bytes with {len(descriptors)} descriptors came after call {self._number}")
            self._number = head[0]
            if head[1] == _EXIT:
                break
            serve(head, view[CONTENT:size], descriptors)
        self._replicas.clear()

    # ---- `CurrentCall`

    def job(self) -> WorkerJob | None:
        """The job that runs."""
        if self._job is None and self._head is not None:
            self._job = WorkerJob(self._page, self._number, self._device, self._name, Facts(*self._head[-4:]))
        return self._job

    def jobs(self) -> list[WorkerJob]:
        """The job that runs; of a batch one for all, because notices are for the whole call."""
        job = self.job()
        return [] if job is None else [job]

    def device(self) -> Device:
        """The device."""
        return self._device

    def time(self) -> float:
        """Seconds of the machine's clock."""
        return monotonic()

    def report(self, progress: Any) -> None:
        """Send it to the parent, which sets `Job.progress`."""
        if self._head is not None:
            self._writer.send_value(AnswerKind.REPORTED, self._number, progress)

    # ---- one request

    def _serve(self, head: tuple[Any, ...], inline: memoryview, descriptors: list[int]) -> None:
        """Make the call of a request. With prefetched calls, this is all that runs between two calls.

        The call has evicted this code from the CPU caches, so few steps matter more than quick ones.
        """
        number, kind, count, style, function, model, length, *_ = self._head = head
        began, failure = monotonic(), AnswerKind.NOT_READ
        try:
            if count:
                content = segments.read(descriptors[0] if descriptors else -1, length)
            else:
                content = loads(inline) if inline else ()  # noqa: S301 - from our parent
            failure = _RAISED
            if kind == _CALL:
                fn, self._name = self._known[function]
                if model == UNNUMBERED and self._cuda is None and not self._page.look(number):
                    value = fn(self._device, *content)
                else:
                    value = self._call(fn, content, model)
            else:
                value = self._first_call(function, model, style, *content)
            content = None  # the arguments are not kept alive while the result is sent
            if type(value) is CoroutineType:
                self._refuse(value)
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
        return self._call(fn, args, model, spec, is_plain=style == CallStyle.PLAIN)

    def _call(self, fn: Any, args: Any, model: int, spec: ModelSpec | None = None, is_plain: bool = False) -> Any:
        if self._page.look(self._number) != Notice.NONE:
            from asyncio import CancelledError

            raise CancelledError  # cancelled, or out of time
        resource = self._device if model == UNNUMBERED else self._replicas.get(model, spec)
        if not is_plain:
            args = (resource, *args)
        return fn(*args) if self._cuda is None else self._cuda.run(lambda _: fn(*args), None)

    def _refuse(self, coroutine: CoroutineType[Any, Any, Any]) -> None:
        coroutine.close()
        raise TypeError(f"{self._name} is a coroutine function: await it yourself, or give the Director a blocking one")

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
        ended = monotonic()
        self._writer.send_plain(kind, number, _packed_error(error), began, ended)

    def _apart(self, values: Any) -> Any:
        from director._executors.remote.batch_items import apart  # few children need it

        return apart(values, _packed_error)

    def _loaded(self, model: int, seconds: float) -> None:
        self._writer.send_plain(AnswerKind.LOADED, self._number, (model, seconds))

    # ---- the process

    def _terminate(self, number: int, _frame: object) -> None:
        """SIGTERM: raise SystemExit, if the parent sent it; else ignore it, as sent to the whole process group."""
        if self._page.is_ending:
            raise SystemExit(128 + number)

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

        packed: Any = tuple(pack_error(error))
        if packed[-1] is not None and packed[-1][0] == "memory":
            free_caches(error)
    except BaseException as refusal:  # noqa: BLE001 - nothing can be imported without descriptors, for example
        return b"", [], "", describe(error), describe(refusal), "", os.getpid(), None
    return packed


def _break(reason: str) -> NoReturn:
    """The parent has broken the protocol: exit."""
    with suppress(Exception):
        sys.stderr.write(f"director: this process ends, for {reason}\n")
        sys.stderr.flush()
    os._exit(_BROKEN)


def _exit_with(parent: int) -> None:
    """Have the kernel kill this process when the slot's thread, which started it, ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        sys.exit(1)
