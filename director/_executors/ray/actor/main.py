"""Makes the calls of an actor, one at a time, on one thread of its own.

Ray's threads receive the calls and wait for their answers, so the call thread goes from one call to the next without a
pause: between two calls of Ray's own queue an actor is idle for a millisecond. The user's objects (arguments, results,
replicas) are used on the call thread only, within the call to which they belong.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from director._executors.ray.actor.call_queue import CallQueue, LastBegun, ReceivedCall
from director._executors.ray.actor.side_channel import SideChannel
from director._executors.ray.messages import (
    Answer,
    AnswerKind,
    CallHeader,
    FirstUse,
    Hardware,
    SideMessage,
    SideMessageKind,
    encode_answer,
    encode_messages,
)
from director._executors.ray.payload import pack, pack_named, unpack
from director._executors.ray.pickling import error_fields, packed_error
from director._executors.remote.batch_items import pack_items
from director._executors.remote.replicas import NotLoaded
from director._executors.remote.worker import CallInfo, RemoteWorker
from director._ipc.log_relay import redirect
from director._ipc.protocol import UNNUMBERED, CallStyle, Facts, Notice
from director._jobs.calls import close
from director._jobs.current import here
from director._system.forks import copied, leave_copy, workers
from director._untrusted.callables import SUSPENDED, explain_resource, refuse_suspended
from director._untrusted.objects import describe

if TYPE_CHECKING:
    from director._devices.footprints import LoadSize
    from director._executors.ray.messages import Payload

_ENDING = 30.0  # seconds in which the driver kills an actor that can't use its device
_POLL = 0.25  # seconds: Ray's waits can't be woken


class ActorMain(RemoteWorker):
    """What is in one actor.

    Raises:
        RuntimeError: Its hardware is not the expected one.
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
        super().__init__(self.queue)
        self._functions: dict[int, Any] = {}  # by number
        self._specs: dict[int, Any] = {}  # of models, by number
        self._has_device = False
        self._loaded: list[tuple[int, float, LoadSize | None]] = []  # for the current call
        self._values = 0  # of the current stream
        self._reports = 0
        self._header: CallHeader | None = None  # of the current call
        self._is_broken = False  # the CUDA context: the device can't be used any more
        redirect(
            levels,
            lambda record: self.channel.add(SideMessage(0, SideMessageKind.LOGGED, 0, (pickle.dumps(record), [], []))),
        )
        self._thread = threading.Thread(target=self._serve, name="director:calls", daemon=True)
        self._thread.start()

    # ---- on Ray's threads

    def call(self, content: bytes, extras: tuple[list[Any], ...]) -> bytes | tuple[Any, ...]:
        """Have a call made after those before it; returns the answer."""
        header, stream = pickle.loads(content)  # noqa: S301 - from our own driver; no code of the user's runs
        call = ReceivedCall(header[0], (CallHeader(*header), (stream, *(extras or ([], [])))))
        del content, stream, extras
        self.queue.put(call)
        answer = call.wait()
        sent_before, messages = self.channel.drain()
        return encode_answer(answer._replace(sent_before=sent_before, messages=tuple(messages)))

    def next_messages(self) -> bytes | tuple[Any, ...]:
        """The next side messages; waits for one."""
        return encode_messages(self.channel.take())

    def shut_down(self) -> bytes | tuple[Any, ...]:
        """Have everything unloaded, on the call thread; returns the last side messages. No call comes after."""
        self.queue.close()
        self._thread.join()
        self.channel.close()
        return encode_messages(self.channel.drain()[1])

    def last_begun(self) -> tuple[int, ...]:
        """The numbers of the last calls that have begun in its slot, in this actor or one before."""
        return self._begun.read()

    def hardware(self) -> Hardware:
        """The hardware that Ray has assigned to this actor."""
        import ray

        from director._devices.discovery import discover_devices

        ids = ray.get_runtime_context().get_accelerator_ids().get(self._accelerator, [])
        devices = tuple(discover_devices()) if self._accelerator == "GPU" and ids else ()
        return Hardware(tuple(sorted(ids, key=lambda each: (len(each), each))), devices)

    # ---- on the call thread

    def _serve(self) -> None:
        """Make calls until `shut_down`."""
        here.running = self  # type: ignore[assignment]  # for this thread; its jobs are `WorkerJob`s
        workers.add(threading.get_ident())
        while not self._is_broken and (call := self._next()) is not None:
            try:
                answer = self._make(call.number, *call.content)
            except BaseException as error:  # noqa: BLE001 - the thread must go on
                answer = Answer(call.number, AnswerKind.UNSENDABLE, payload=pack(describe(error)))
            if copied:
                leave_copy()
            call.content = None
            call.finish(answer)
            del call, answer
        if self._is_broken:
            time.sleep(_ENDING)  # the driver kills this process; the next one makes the calls that have not begun
            os._exit(1)
        if self._has_device:
            self._replicas.clear()
        self._begun.remove()

    def _next(self) -> ReceivedCall | None:
        try:
            return self.queue.next()
        except OSError:
            os._exit(1)  # another actor has replaced this one

    def _make(self, number: int, header: CallHeader, arguments: Any) -> Answer:
        """Make one call; its exception is in the answer."""
        began, failure = time.monotonic(), AnswerKind.RAISED
        self._header, self._values, self._loaded = header, 0, []
        try:
            self._accept_first_use(header)
            fn, failure = self._function(header.function), AnswerKind.NOT_READ
            args = self._with_values(header, _unpack_arguments(header, arguments))
            del arguments
            failure = AnswerKind.RAISED
            kind, value = AnswerKind.RETURNED, Context().run(self._call_with_resource, header, fn, args)
        except NotLoaded as error:
            return self._answer(number, AnswerKind.NOT_LOADED, began, packed_error(error.error)[0])
        except BaseException as error:  # noqa: BLE001 - all errors belong to the caller
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
                value = pack_items(value, error_fields, partial(pack_named, what="the result"))
            payload = pack(value)
        except BaseException as error:  # noqa: BLE001 - raised by the class of the value
            kind, payload = AnswerKind.UNSENDABLE, pack(describe(error))
        return self._answer(number, kind, began, payload, ended)

    def _answer(self, number: int, kind: int, began: float, payload: Any, ended: float | None = None) -> Answer:
        ended = time.monotonic() if ended is None else ended
        return Answer(number, int(kind), began, ended, tuple(self._loaded), self._values, payload=payload)

    def _accept_first_use(self, header: CallHeader) -> None:
        if header.first_use is None:
            return
        device, function, spec = FirstUse(*header.first_use)
        if not self._has_device:
            self._has_device = True
            self._set_device(device, lambda *load: self._loaded.append(load))
        if function:
            self._functions[header.function] = function  # unpickled for the call, because that may raise
        if spec:
            self._specs[header.model] = spec

    def _with_values(self, header: CallHeader, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, with values in place of references.

        Raises:
            CancelledError: The call was cancelled, or is out of time.
            Exception: The exception of the task that a reference belongs to, or Ray's if the value is lost.
        """
        if not header.awaited:
            return args
        import ray

        references = [args[index] for index in header.awaited]
        waiting = references
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL)
            self._check_wanted(header.number)
        values = dict(zip(header.awaited, ray.get(references), strict=True))
        return tuple(values.get(index, each) for index, each in enumerate(args))

    def _call_with_resource(self, header: CallHeader, fn: Any, args: tuple[Any, ...]) -> Any:
        spec = None if header.model == UNNUMBERED else self._spec(header.model)
        if header.style == CallStyle.BATCH:
            args = (list(args),)
        try:
            value = self._call_function(header.number, fn, args, header.model, spec, header.style == CallStyle.PLAIN)
        except TypeError as error:
            if header.style != CallStyle.PLAIN:
                resource_kind: Any = "device" if header.model == UNNUMBERED else "replica"
                explain_resource(error, fn, resource_kind, header.style == CallStyle.BATCH)
            raise
        if header.style == CallStyle.STREAM:
            return self._stream(header, value)
        if type(value) in SUSPENDED and header.style != CallStyle.PLAIN:
            refuse_suspended(value, header.name)
        return value

    def _stream(self, header: CallHeader, generator: Any) -> None:
        """Send the values of a generator, each when the device has computed it, until the end or a notice."""

        def is_unwanted() -> bool:
            return self.queue.look(header.number) is not Notice.NONE

        try:
            for value in generator:
                if self._cuda is not None:
                    self._cuda.wait()
                payload = pack_named(value, f"a value of {header.name}")
                del value
                message = SideMessage(header.number, SideMessageKind.YIELDED, self._values, payload)
                if not self.channel.add_value(message, is_unwanted):
                    close(generator)
                    return
                self._values += 1
        except BaseException:
            close(generator) if hasattr(generator, "gi_frame") else None
            raise

    def _function(self, number: int) -> Any:
        fn = self._functions[number]
        if isinstance(fn, bytes):
            fn = pickle.loads(fn)  # noqa: S301 - from our own driver
            if number == UNNUMBERED:
                return fn  # the next one may be another
            self._functions[number] = fn
        return fn

    def _spec(self, number: int) -> Any:
        spec = self._specs[number]
        if isinstance(spec, bytes):
            spec = self._specs[number] = pickle.loads(spec)  # noqa: S301 - from our own driver
        return spec

    # ---- the call that runs

    def _call_info(self) -> CallInfo | None:
        header = self._header
        if header is None:
            return None
        return CallInfo(header.number, header.model, header.name, Facts(*header.facts), header.tenant)

    def _send_report(self, told: Any) -> None:
        assert self._header is not None
        payload = pack_named(told, "the progress")
        self._reports += 1
        self.channel.add(SideMessage(self._header.number, SideMessageKind.REPORTED, self._reports, payload))


def _unpack_arguments(header: CallHeader, arguments: Payload) -> Any:
    try:
        return unpack(arguments)
    except BaseException as error:
        raise pickle.PicklingError(f"the arguments of {header.name} can't be unpickled: {describe(error)}") from error
