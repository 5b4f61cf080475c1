"""The life of a child: take a request, make the call, tell how it ended. On its main thread, which is the jobs' own."""

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
# A member takes a search each time.
_CALL, _EXIT, _BATCH = RequestKind.CALL, RequestKind.EXIT, CallStyle.BATCH
_RETURNED, _RAISED, _YIELDED = AnswerKind.RETURNED, AnswerKind.RAISED, AnswerKind.YIELDED


def main(facts: dict[str, Any]) -> None:
    """Serve the parent until it says go, or is gone.

    Args:
        facts: What the parent's `spawn` wrote.
    """
    for name in ("inbox", "answers", "page", "wake"):
        os.set_inheritable(facts[name], False)  # what a job starts has no part in them
    _die_with(facts["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's whole group; the parent decides what ends
    LazyMainModule(facts["main"]).install()
    ChildMain(facts).serve()


class ChildMain:
    """One child. Also what a job in it may ask about itself (`director._jobs.current.Running`)."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._device: Device = loads(facts["device"])  # noqa: S301 - from our parent
        self._inbox = socket.socket(fileno=facts["inbox"])
        self._answers = socket.socket(fileno=facts["answers"])
        self._page = SharedPage(facts["page"])
        os.close(facts["page"])
        self._wake: int = facts["wake"]
        self._writer = AnswerWriter(self._answers)
        self._shelf = WorkerReplicas(self._device, self._loaded)
        self._cuda = CudaThread(0, own_stream=False) if self._device.kind == "cuda" else None
        self._known: dict[int, tuple[Any, str]] = {}  # functions and their names, by number
        self._number = 0  # of the last call
        self._head: tuple[Any, ...] | None = None  # of the request that is served
        self._name = ""
        self._job: WorkerJob | None = None  # made when it is asked for
        here.running = self  # type: ignore[assignment]  # of this thread, the main one, for good; jobs see a stand-in
        signal.signal(signal.SIGTERM, self._terminate)
        os.register_at_fork(after_in_child=self._leave_family)
        redirect(facts["levels"], lambda record: self._writer.tell_plainly(AnswerKind.LOGGED, 0, record))

    def serve(self) -> None:
        """Serve requests until there are no more."""
        self._writer.tell(AnswerKind.READY, 0)
        memory = bytearray(LONGEST)
        view, pieces, serve, receive = memoryview(memory), [memory], self._serve, self._inbox.recvmsg_into
        while True:  # as `Receiver.receive`, but for the steps that it takes; see `_serve`
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
        self._shelf.clear()

    # ---- what a running job may ask

    def job(self) -> WorkerJob | None:
        """Stands for the job that runs."""
        if self._job is None and self._head is not None:
            self._job = WorkerJob(self._page, self._number, self._device, self._name, Facts(*self._head[-4:]))
        return self._job

    def jobs(self) -> list[WorkerJob]:
        """The same; one stands for all that share the call, for the page speaks of all of them."""
        job = self.job()
        return [] if job is None else [job]

    def device(self) -> Device:
        """Where it runs."""
        return self._device

    def time(self) -> float:
        """Seconds of the machine's clock."""
        return monotonic()

    def report(self, progress: Any) -> None:
        """Send it to the parent, which keeps and tells it."""
        if self._head is not None:
            self._writer.tell(AnswerKind.REPORTED, self._number, progress)

    # ---- one request

    def _serve(self, head: tuple[Any, ...], inline: memoryview, descriptors: list[int]) -> None:
        """Make the call of a request. With the next one ready it is all that a child does between two calls.

        What it does it finds in cold caches, for the call has had the core: few steps count more than quick ones.
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
            self._writer.tell(_RETURNED, number, value, began, monotonic())
        except NotLoaded as error:
            self._fail(AnswerKind.NOT_LOADED, number, error.error, began)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            self._fail(failure, number, error, began)
        finally:
            self._head = self._job = None

    def _first_call(
        self, function: int, model: int, style: int, fn: Any, name: str, args: Any, recipe: ModelSpec | None
    ) -> Any:
        """A call with everything about it."""
        self._name = name
        if function != UNNUMBERED:
            self._known[function] = fn, name
        if style == CallStyle.STREAM:
            fn = partial(self._stream, self._number, fn)
        return self._call(fn, args, model, recipe, is_plain=style == CallStyle.PLAIN)

    def _call(self, fn: Any, args: Any, model: int, recipe: ModelSpec | None = None, is_plain: bool = False) -> Any:
        if self._page.look(self._number) != Notice.NONE:
            from asyncio import CancelledError

            raise CancelledError  # all its callers have left
        resource = self._device if model == UNNUMBERED else self._shelf.get(model, recipe)
        if not is_plain:
            args = (resource, *args)
        return fn(*args) if self._cuda is None else self._cuda.run(lambda _: fn(*args), None)

    def _refuse(self, coroutine: CoroutineType[Any, Any, Any]) -> None:
        coroutine.close()
        raise TypeError(f"{self._name} is a coroutine function: await it yourself, or give the Director a blocking one")

    def _stream(self, number: int, fn: Any, *args: Any) -> None:
        from director._executors.process.child.streaming import run_generator  # few children need it

        def tell(value: Any) -> int:
            if self._cuda is not None:
                self._cuda.wait()  # each value is finished when it is handed over, as each result is
            return self._writer.tell(_YIELDED, number, value)

        run_generator(fn(*args), self._page, number, self._wake, tell)

    def _fail(self, kind: AnswerKind, number: int, error: BaseException, began: float) -> None:
        if self._page.is_ending and isinstance(error, SystemExit):
            raise error  # by `_terminate`
        if self._writer.answered == number:
            return  # it came after the last answer
        ended = monotonic()
        self._writer.tell_plainly(kind, number, _story(error), began, ended)

    def _apart(self, values: Any) -> Any:
        from director._executors.remote.batch_items import apart  # few children need it

        return apart(values, _story)

    def _loaded(self, model: int, seconds: float) -> None:
        self._writer.tell_plainly(AnswerKind.LOADED, self._number, (model, seconds))

    # ---- the process

    def _terminate(self, number: int, _frame: object) -> None:
        """SIGTERM: leave through every `finally`, if the parent means it; else it was meant for the whole program."""
        if self._page.is_ending:
            raise SystemExit(128 + number)

    def _leave_family(self) -> None:
        """In a process that was forked from this one: it must not keep the parent waiting for an end."""
        self._answers.close()
        self._inbox.close()
        os.close(self._wake)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _story(error: BaseException) -> Any:
    """What is told of an exception."""
    try:
        from director._ipc.exceptions import free_caches, pack_error  # most children never need it

        story: Any = tuple(pack_error(error))
        if story[-1] is not None and story[-1][0] == "memory":
            free_caches(error)
    except BaseException as refusal:  # noqa: BLE001 - without descriptors nothing can be imported, for example
        return b"", [], "", describe(error), describe(refusal), "", os.getpid(), None
    return story


def _break(reason: str) -> NoReturn:
    """A rule of the wire is broken: nothing that comes from there can be trusted."""
    with suppress(Exception):
        sys.stderr.write(f"director: this process ends, for {reason}\n")
        sys.stderr.flush()
    os._exit(_BROKEN)


def _die_with(parent: int) -> None:
    """Have the system kill this process when the thread that started it ends, which its process does not survive."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        sys.exit(1)
