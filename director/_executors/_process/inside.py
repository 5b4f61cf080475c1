"""The life of a child: take a request, make the call, tell how it ended. On its main thread, which is the jobs' own."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from functools import partial
from pickle import loads
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from director._current import here
from director._executors._cuda_thread import CudaThread
from director._executors._process.board import Board, Notice
from director._executors._process.flow import Credits
from director._executors._process.logs import redirect
from director._executors._process.outlet import Outlet
from director._executors._process.program import LateMain
from director._executors._process.segments import Arrivals, Shipments
from director._executors._process.shelf import NotLoaded, Shelf
from director._executors._process.standin import StandIn
from director._executors._process.wire import (
    FRAME,
    INLINE,
    NOWHERE,
    UNNUMBERED,
    Ask,
    How,
    Load,
    Tell,
    facts_of,
    head_of,
)

if TYPE_CHECKING:
    from director._device import Device
    from director._executors._process.shelf import Recipe

_PR_SET_PDEATHSIG = 1
_CALL, _GO, _RETURNED = int(Ask.CALL), int(Ask.GO), int(Tell.RETURNED)  # an enum's member takes a search each time


def main(facts: dict[str, Any]) -> None:
    """Serve the parent until it says go, or is gone.

    Args:
        facts: What the parent's `spawn` wrote.
    """
    _die_with(facts["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's whole group; the parent decides what ends
    LateMain(facts["main"]).install()
    Inside(facts).serve()


class Inside:
    """One child. Also what a job in it may ask about itself (`director._current.Running`)."""

    def __init__(self, facts: dict[str, Any]) -> None:
        control = socket.socket(fileno=facts["control"])
        self._device: Device = loads(facts["device"])  # noqa: S301 - from our parent
        self._inbox: int = facts["inbox"]
        self._board = Board(facts["board"])
        self._shipments, self._arrivals = Shipments(control), Arrivals(control)
        self._outlet = Outlet(facts["answers"], self._shipments, self._arrivals)
        self._shelf = Shelf(self._device, self._loaded)
        self._cuda = CudaThread(0, own_stream=False) if self._device.kind == "cuda" else None
        self._credits = Credits(facts["credits"])
        self._met: dict[int, tuple[Any, str]] = {}  # functions and their names, by number
        self._request = b""  # the frame that is served
        self._number = 0  # its number
        self._name = ""
        self._job: StandIn | None = None  # made when it is asked for
        here.running = self  # type: ignore[assignment]  # of this thread, the main one, for good; jobs see a stand-in
        signal.signal(signal.SIGTERM, self._terminate)
        os.register_at_fork(after_in_child=self._leave_family)
        redirect(facts["levels"], lambda record: self._outlet.tell(Tell.LOGGED, 0, record))

    def serve(self) -> None:
        """Serve requests until there are no more."""
        self._outlet.tell(Tell.READY, 0)
        read, inbox, serve = os.read, self._inbox, self._serve
        while frame := read(inbox, FRAME):
            if frame[0] == _GO:
                break
            serve(frame)
        self._shelf.clear()

    # ---- what a running job may ask

    def job(self) -> StandIn | None:
        """Stands for the job that runs."""
        if self._job is None and self._request:
            self._job = StandIn(self._board, self._number, self._device, self._name, facts_of(self._request))
        return self._job

    def jobs(self) -> list[StandIn]:
        """The same; one stands for all that share the call, for the board speaks of all of them."""
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
        if self._request:
            self._outlet.tell(Tell.REPORTED, self._number, progress)

    # ---- one request

    def _serve(self, frame: bytes) -> None:
        """Make the call of a request. With the next one ready it is all that a child does between two calls.

        What it does it finds in cold caches, for the call has had the core: few steps count more than quick ones.
        """
        kind, freed, segment, size, function, model, length, number = head_of(frame)
        if freed:
            self._shipments.freed(freed)
        self._request, self._number = frame, number
        began = monotonic()
        try:
            if segment == NOWHERE:
                content = loads(frame[INLINE : INLINE + size]) if size else ()  # noqa: S301 - from our parent
            else:
                content = self._arrivals.receive(Load(b"", segment, length))
            if kind == _CALL:
                fn, self._name = self._met[function]
                if model == UNNUMBERED and self._cuda is None and not self._board.look(number):
                    value = fn(self._device, *content)
                else:
                    value = self._call(fn, content, model)
            else:
                value = self._meet(function, model, *content)
            content = None  # what it lay in may be free again, and this answer says so
            if type(value) is CoroutineType:
                self._refuse(value)
            self._outlet.tell(_RETURNED, number, value, began, monotonic())
        except NotLoaded as failure:
            self._fail(Tell.NOT_LOADED, number, failure.error, began)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            self._fail(Tell.RAISED, number, error, began)
        finally:
            self._request, self._job = b"", None

    def _meet(self, function: int, model: int, fn: Any, name: str, args: Any, how: int, recipe: Recipe | None) -> Any:
        """A call with everything about it."""
        self._name = name
        if function != UNNUMBERED:
            self._met[function] = fn, name
        if how == How.AS_STREAM:
            fn = partial(self._stream, self._number, fn)
        return self._call(fn, args, model, recipe, is_bare=how == How.BARELY)

    def _call(self, fn: Any, args: Any, model: int, recipe: Recipe | None = None, is_bare: bool = False) -> Any:
        if self._board.look(self._number) != Notice.NONE:
            from asyncio import CancelledError

            raise CancelledError  # nobody waits for it any more
        resource = self._device if model == UNNUMBERED else self._shelf.get(model, recipe)
        if not is_bare:
            args = (resource, *args)
        return fn(*args) if self._cuda is None else self._cuda.run(lambda _: fn(*args), None)

    def _refuse(self, coroutine: CoroutineType[Any, Any, Any]) -> None:
        coroutine.close()
        raise TypeError(f"{self._name} is a coroutine function: await it yourself, or give the Director a blocking one")

    def _stream(self, number: int, fn: Any, *args: Any) -> None:
        from director._executors._process.pump import pump  # the same

        def tell(value: Any) -> None:
            if self._cuda is not None:
                self._cuda.wait()  # each value is finished when it is handed over, as each result is
            self._outlet.tell(Tell.YIELDED, number, (value,))

        pump(fn(*args), self._credits, tell, lambda: self._board.look(number) != Notice.NONE)

    def _fail(self, kind: Tell, number: int, error: BaseException, began: float) -> None:
        if self._board.is_ending and isinstance(error, SystemExit):
            raise error  # by `_terminate`
        from director._executors._process.raised import free_caches, raised  # most children never need it

        ended, story = monotonic(), raised(error)
        if story.fault is not None and story.fault[0] == "memory":
            free_caches(error)
        self._outlet.tell(kind, number, tuple(story), began, ended)

    def _loaded(self, model: int, seconds: float) -> None:
        self._outlet.tell(Tell.LOADED, 0, (model, seconds))

    # ---- the process

    def _terminate(self, number: int, _frame: object) -> None:
        """SIGTERM: leave through every `finally`, if the parent means it; else it was meant for the whole program."""
        if self._board.is_ending:
            raise SystemExit(128 + number)

    def _leave_family(self) -> None:
        """In a process that was forked from this one: it must not keep the parent waiting for an end."""
        self._outlet.close()
        os.close(self._inbox)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _die_with(parent: int) -> None:
    """Have the system kill this process when the thread that started it ends, which its process does not survive."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        sys.exit(1)
