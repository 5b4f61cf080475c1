"""The inside of an actor: makes the calls of one slot, one at a time, on one thread of its own.

Ray's threads bring the calls and wait for their answers, so that the call thread goes from one call to the next without
a pause: between two calls in Ray's own queue an actor rests for a millisecond. What belongs to the user (arguments,
results, replicas) is touched on the call thread alone, within the call that it belongs to.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from asyncio import CancelledError
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from director._executors.cuda_thread import CudaThread
from director._executors.ray.actor.call_queue import CallQueue, ReceivedCall
from director._executors.ray.actor.last_begun import LastBegun
from director._executors.ray.actor.side_channel import SideChannel
from director._executors.ray.messages import (
    Answer,
    AnswerKind,
    CallHeader,
    FirstUse,
    Hardware,
    Note,
    NoteKind,
    encode_answer,
    encode_notes,
)
from director._executors.ray.payload import pack, pack_named, unpack
from director._executors.ray.pickling import packed_error, story
from director._executors.remote.batch_items import apart
from director._executors.remote.job_view import WorkerJob
from director._executors.remote.replicas import NotLoaded, WorkerReplicas
from director._forks import copied, leave_copy, workers
from director._ipc.log_relay import redirect
from director._ipc.protocol import UNNUMBERED, CallStyle, Notice
from director._jobs.calls import close
from director._jobs.current import here
from director._untrusted.objects import describe

if TYPE_CHECKING:
    from director._device import Device
    from director._executors.ray.messages import Payload

_ENDING = 30.0  # seconds in which the driver ends an actor whose device is broken
_GLANCE = 0.25  # seconds: Ray's own waits can't be woken


class Worker:
    """What is in one actor. Also what a job in it may ask about itself (`director._jobs.current.Running`).

    Args:
        name: Of the file that outlives it.
        is_first: Whether no actor of the slot came before.
        levels: Of the driver's loggers.
        accelerator: Ray's word for what the device is one of.
        expected: What the device is; `None` for its first actor, which says so.

    Raises:
        RuntimeError: It has something else: it makes no call.
    """

    def __init__(
        self, name: str, is_first: bool, levels: dict[str, int], accelerator: str, expected: Hardware | None
    ) -> None:
        self._accelerator = accelerator
        if expected is not None and (found := self.hardware()) != expected:
            raise RuntimeError(f"Ray has given this actor {found} instead of {expected}, so it makes no call")
        self._begun = LastBegun(name, is_first=is_first)
        self.channel = SideChannel()
        self.queue = CallQueue(self._begun, self.channel.wake)
        self._functions: dict[int, Any] = {}  # by number
        self._recipes: dict[int, Any] = {}  # of models, by number
        self._device: Device | None = None
        self._shelf: WorkerReplicas | None = None
        self._loaded: list[tuple[int, float]] = []  # for the call that is made
        self._values = 0  # that it has given
        self._reports = 0
        self._cuda: CudaThread | None = None
        self._header: CallHeader | None = None  # of the call that is made
        self._job: WorkerJob | None = None  # made when it is asked for
        self._is_broken = False  # CUDA's context here: nothing works on the device any more
        redirect(levels, lambda record: self.channel.add(Note(0, NoteKind.LOGGED, 0, (pickle.dumps(record), [], []))))
        self._thread = threading.Thread(target=self._serve, name="director:calls", daemon=True)
        self._thread.start()

    # ---- on Ray's threads

    def call(self, content: bytes, extras: tuple[list[Any], ...]) -> bytes | tuple[Any, ...]:
        """Have a call made in its turn; the answer."""
        header, stream = pickle.loads(content)  # noqa: S301 - of our own driver, and no user code runs
        call = ReceivedCall(header[0], (CallHeader(*header), (stream, *(extras or ([], [])))))
        del content, stream, extras
        self.queue.put(call)
        answer = call.wait()
        told, notes = self.channel.drain()
        return encode_answer(answer._replace(told=told, notes=tuple(notes)))

    def listen(self) -> bytes | tuple[Any, ...]:
        """The notes that there are, when there are some."""
        return encode_notes(self.channel.take())

    def farewell(self) -> bytes | tuple[Any, ...]:
        """Have everything unloaded, on the call thread: no call comes after. The notes that are left."""
        self.queue.close()
        self._thread.join()
        self.channel.close()
        return encode_notes(self.channel.drain()[1])

    def begun(self) -> tuple[int, ...]:
        """The numbers of the last calls that have begun in its slot, in this actor or one before."""
        return self._begun.read()

    def hardware(self) -> Hardware:
        """What it computes on."""
        import ray

        from director._devices.discovery import discover_devices

        ids = ray.get_runtime_context().get_accelerator_ids().get(self._accelerator, [])
        devices = tuple(discover_devices()) if self._accelerator == "GPU" and ids else ()
        return Hardware(tuple(sorted(ids, key=lambda each: (len(each), each))), devices)

    # ---- on the call thread

    def _serve(self) -> None:
        """Make calls until the driver says farewell."""
        here.running = self  # type: ignore[assignment]  # of this thread; jobs see a stand-in
        workers.add(threading.get_ident())
        while not self._is_broken and (call := self._next()) is not None:
            try:
                answer = self._make(call.number, *call.content)
            except BaseException as error:  # noqa: BLE001 - this thread has to go on
                answer = Answer(call.number, AnswerKind.UNSENDABLE, payload=pack(describe(error)))
            if copied:
                leave_copy()
            call.content = None
            call.finish(answer)
            del call, answer
        if self._is_broken:
            time.sleep(_ENDING)  # the driver ends this process; what has not begun is made by the next one
            os._exit(1)
        if self._shelf is not None:
            self._shelf.clear()
        self._begun.remove()

    def _next(self) -> ReceivedCall | None:
        try:
            return self.queue.next()
        except OSError:
            os._exit(1)  # another actor makes the calls of this slot

    def _make(self, number: int, header: CallHeader, arguments: Any) -> Answer:
        """Make one call; whatever it raises is in the answer."""
        began, failure = time.monotonic(), AnswerKind.RAISED
        self._header, self._values, self._loaded = header, 0, []
        try:
            self._introduce(header)
            fn, failure = self._function(header.function), AnswerKind.NOT_READ
            args = self._arguments(header, _opened(header, arguments))
            del arguments
            failure = AnswerKind.RAISED
            kind, value = AnswerKind.RETURNED, self._called(header, fn, args)
        except NotLoaded as error:
            return self._answer(number, AnswerKind.NOT_LOADED, began, packed_error(error.error)[0])
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            if copied:
                leave_copy(error)
            payload, is_sticky = packed_error(error)
            self._is_broken = is_sticky
            return self._answer(number, failure, began, payload)
        finally:
            self._header = self._job = None
        ended = time.monotonic()
        try:
            if header.style == CallStyle.BATCH:
                value = apart(value, story, partial(pack_named, what="the result"))
            payload = pack(value)
        except BaseException as error:  # noqa: BLE001 - whatever the class of the value raises
            kind, payload = AnswerKind.UNSENDABLE, pack(describe(error))
        return self._answer(number, kind, began, payload, ended)

    def _answer(self, number: int, kind: int, began: float, payload: Any, ended: float | None = None) -> Answer:
        ended = time.monotonic() if ended is None else ended
        return Answer(number, int(kind), began, ended, tuple(self._loaded), self._values, payload=payload)

    def _introduce(self, header: CallHeader) -> None:
        if header.introduction is None:
            return
        device, function, recipe = FirstUse(*header.introduction)
        if self._shelf is None:
            self._device = device
            self._shelf = WorkerReplicas(device, lambda number, seconds: self._loaded.append((number, seconds)))
            self._cuda = CudaThread(0, own_stream=False) if device.kind == "cuda" else None
        if function:
            self._functions[header.function] = function  # unpickled when it is called: that may raise
        if recipe:
            self._recipes[header.model] = recipe

    def _arguments(self, header: CallHeader, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, with the values of those that are references of Ray's.

        Raises:
            CancelledError: All callers have left.
            Exception: What the task has raised whose result one of them is, or Ray that it is lost.
        """
        if not header.awaited:
            return args
        import ray

        references = [args[place] for place in header.awaited]
        waiting = references
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_GLANCE)
            self._check_wanted(header)
        values = dict(zip(header.awaited, ray.get(references), strict=True))
        return tuple(values.get(place, each) for place, each in enumerate(args))

    def _check_wanted(self, header: CallHeader) -> None:
        if self.queue.look(header.number) is not Notice.NONE:
            raise CancelledError

    def _called(self, header: CallHeader, fn: Any, args: tuple[Any, ...]) -> Any:
        self._check_wanted(header)
        assert self._shelf is not None
        resource = self._device
        if header.model != UNNUMBERED:
            resource = self._shelf.get(header.model, self._recipe(header.model))
        if header.style == CallStyle.BATCH:
            args = (list(args),)
        if header.style != CallStyle.PLAIN:
            args = (resource, *args)
        value = fn(*args) if self._cuda is None else self._cuda.run(lambda _: fn(*args), None)
        if type(value) is CoroutineType:
            value.close()
            raise TypeError(
                f"{header.name} is a coroutine function: await it yourself, or give the Director a blocking one"
            )
        return self._pump(header, value) if header.style == CallStyle.STREAM else value

    def _pump(self, header: CallHeader, generator: Any) -> None:
        """Tell the values of a generator as they come, each finished on the device, until no reader wants more."""

        def is_over() -> bool:
            return self.queue.look(header.number) is not Notice.NONE

        try:
            for value in generator:
                if self._cuda is not None:
                    self._cuda.wait()
                payload = pack_named(value, f"a value of {header.name}")
                del value
                note = Note(header.number, NoteKind.YIELDED, self._values, payload)
                if not self.channel.add_value(note, is_over):
                    close(generator)
                    return
                self._values += 1
        except BaseException:
            close(generator) if hasattr(generator, "gi_frame") else None
            raise

    def _function(self, number: int) -> Any:
        fn = self._functions[number]
        if isinstance(fn, bytes):
            fn = pickle.loads(fn)  # noqa: S301 - of our own driver
            if number == UNNUMBERED:
                return fn  # there may be another one next time
            self._functions[number] = fn
        return fn

    def _recipe(self, number: int) -> Any:
        recipe = self._recipes[number]
        if isinstance(recipe, bytes):
            recipe = self._recipes[number] = pickle.loads(recipe)  # noqa: S301 - the same
        return recipe

    # ---- what a running job may ask

    def job(self) -> WorkerJob | None:
        """Stands for the job that runs."""
        header = self._header
        if self._job is None and header is not None and self._device is not None:
            board: Any = self.queue
            facts: Any = header.facts
            self._job = WorkerJob(board, header.number, self._device, header.name, facts)
        return self._job

    def jobs(self) -> list[WorkerJob]:
        """The same; one stands for all that share the call, for notices speak of all of them."""
        job = self.job()
        return [] if job is None else [job]

    def device(self) -> Device:
        """Where it runs."""
        assert self._device is not None, "a call runs"
        return self._device

    def time(self) -> float:
        """Seconds of the machine's clock."""
        return time.monotonic()

    def report(self, progress: Any) -> None:
        """Send it to the driver, which keeps and tells it.

        Raises:
            PicklingError: It can't be sent.
        """
        if self._header is None:
            return
        payload = pack_named(progress, "the progress")
        self._reports += 1
        self.channel.add(Note(self._header.number, NoteKind.REPORTED, self._reports, payload))


def _opened(header: CallHeader, arguments: Payload) -> Any:
    try:
        return unpack(arguments)
    except BaseException as error:
        raise pickle.PicklingError(f"the arguments of {header.name} can't be unpickled: {describe(error)}") from error
