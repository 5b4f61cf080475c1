"""The call of a child, and its message: with the number of the function once the child knows it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from director._executors.process.termination import Termination
from director._executors.remote.calls import CallState, PendingCall, facts_of, packed_tenant
from director._executors.remote.replicas import spec_of
from director._ipc import main_module
from director._ipc.by_name import known_number, name_of, next_number, pack, sendable
from director._ipc.frames import INLINE, RequestKind
from director._ipc.pickling import Payload, wrap
from director._ipc.protocol import UNNUMBERED, CallStyle

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from director._executors.remote.loaded_models import LoadedModels
    from director._ipc.frames import Answer
    from director._ipc.protocol import Facts
    from director._ipc.shared_page import Notice, SharedPage
    from director._jobs.job import ScheduledJob

_FIRST_CALL, _CALL = RequestKind.FIRST_CALL, RequestKind.CALL  # looking up an enum member is slow
_SENT = CallState.SENT
_SILENCE = 10.0  # seconds in which an idle child takes a call, unless it is stopped or stuck
_BOOTING = 60.0  # the same for a child that starts, from a slow disk
_SECOND_CHECK = 1.0  # further seconds: the machine, or both processes, may have been stopped
_MOST_PREFETCHED = 1 << 12  # bytes of content of a prefetched call
_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None)})
_NESTED_AT_MOST = 4
_MOST_NAMED = 256  # names of jobs; those that come later are sent with each call


class Child(Protocol):
    """The child, as its calls and messages know it."""

    known: set[int]
    """Numbers of the functions that it has."""
    page: SharedPage

    def is_waiting(self, call: PendingCall) -> bool:
        """Whether the child has not received the message of a call."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""


Maker = TypeVar("Maker", bound=Child)


class ProcessCall(PendingCall, Generic[Maker]):
    """A call, and the child that makes it. For the slot's thread; `notify` and `end` for the event loop."""

    child: Maker | None = None  # the one to which it was sent last
    function: int | None = None  # its number, once that was sent
    is_typical = True  # its time predicts that of the next one
    began = 0.0
    taken = 0  # of a stream: units that were received
    answer: Answer | None = None  # its last one, if it arrived before `begin`
    _termination: Termination | None = None
    _silent_until = math.inf
    _was_silent = False

    def description(self) -> str:
        """Its name in errors."""
        return f"the call of {self.jobs[0].name}"

    def begin(self, now: float, is_ready: bool) -> None:
        """The slot's thread waits for this call now."""
        self.began = now
        self._silent_until = now + (_SILENCE if is_ready else _BOOTING)

    def notify(self, notice: Notice) -> None:
        """Post a notice to the call; one that was not sent yet gets it with `send`."""
        if (child := self.child) is not None:
            child.page.post(self.number, notice)

    def end(self, moment: float, grace: float) -> None:
        """Begin to end the call at `moment`."""
        termination = self._termination or Termination(grace)
        termination.begin(moment)
        self._termination = termination  # last: the slot's thread may read it

    def next_check(self) -> float:
        """The time at which to call `escalate`; infinite for never."""
        termination = self._termination
        return self._silent_until if termination is None else min(self._silent_until, termination.next)

    def escalate(self, child: Child) -> None:
        """Take the steps of ending the call that are due.

        Raises:
            Unkillable: The child does not exit.
        """
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = math.inf
            if self.state is _SENT and child.is_waiting(self):
                if self._was_silent:
                    self.end(now, 0.0)
                else:
                    self._was_silent, self._silent_until = True, now + _SECOND_CHECK
        if self._termination is not None:
            self._termination.escalate(now, child.signal)


class CallMessage(NamedTuple):
    """The message of a call.

    Args:
        kind: Whether the child knows the function.
        function, model: Their numbers.
        facts: Of the job.
        tenant: Of the job; empty if it has none.
        payload: The content; `None` for none.
    """

    kind: RequestKind
    function: int
    model: int
    facts: Facts
    tenant: bytes
    payload: Payload | None

    @property
    def is_first_use(self) -> bool:
        """Whether the function is new to the child, which may have to import its module."""
        return self.kind is _FIRST_CALL and self.function != UNNUMBERED


class CallEncoder:
    """Makes the messages for the children of a slot.

    Args:
        models: The models that the child has.
        time: The Director's clock.
    """

    def __init__(self, models: LoadedModels, time: Callable[[], float]) -> None:
        self._models = models
        self._named: dict[tuple[int, str], int] = {}  # by number of the function, and the option `name`
        self._time = time
        self._is_prompt = main_module.origin() is None  # our main module can't be imported

    def encode(self, call: ProcessCall[Any], child: Child) -> CallMessage:
        """The message of the next call.

        Raises:
            PicklingError: It can't be sent.
        """
        job, args = call.jobs[0], call.args
        model, options = UNNUMBERED, job.options
        if options.model is not None:
            model = self._models.number(options.model)
        tenant = b"" if options.tenant is None else self._packed_tenant(job)
        function = UNNUMBERED
        if call.style <= CallStyle.BATCH and (name := name_of(call.fn)) is not None:
            function = self._number_of(name.number, options.name)
            call.function = None if function == UNNUMBERED else function
            if function in child.known and (model == UNNUMBERED or model in self._models.loaded):
                payload = pack(args, call.description, self._is_prompt) if args else None
                return CallMessage(_CALL, function, model, facts_of(job, self._time), tenant, payload)
        spec = None if options.model is None else spec_of(options.model, sendable, can_sleep=True)
        content = sendable(call.fn), job.name, args, spec
        payload = pack(content, call.description, self._is_prompt)
        return CallMessage(_FIRST_CALL, function, model, facts_of(job, self._time), tenant, payload)

    def encode_prefetched(self, call: ProcessCall[Any], child: Child) -> CallMessage | None:
        """The message of a call to prefetch during another call; `None` if it can't be prefetched.

        Runs no code of the user's, which could raise or block within the other call.
        """
        try:
            return self._encode_plain(call, child)
        except Exception:  # noqa: BLE001 - a list was changed by another thread, say: `encode` will raise it
            return None

    def _encode_plain(self, call: ProcessCall[Any], child: Child) -> CallMessage | None:
        job = call.jobs[0]
        options, number, model = job.options, known_number(call.fn), UNNUMBERED
        function = UNNUMBERED if number is None else self._number_of(number, options.name)
        if function not in child.known or not _are_plain(call.args):
            return None
        tenant = b""
        if options.tenant is not None:
            if not _are_plain((options.tenant,)):
                return None
            tenant = self._packed_tenant(job)
        if options.model is not None:
            model = self._models.number(options.model)
            if model not in self._models.loaded:
                return None
        payload = wrap(call.args) if call.args else None
        if payload is not None and len(payload.stream) > _MOST_PREFETCHED:
            return None
        return CallMessage(_CALL, function, model, facts_of(job, self._time), tenant, payload)

    def _packed_tenant(self, job: ScheduledJob[Any]) -> bytes:
        return packed_tenant(job, lambda value, what: pack(value, what, self._is_prompt))

    def _number_of(self, number: int, name: str | None) -> int:
        """The number of a function whose jobs have the option `name`: the child keeps both together."""
        if name is None:
            return number
        found = self._named.get((number, name))
        if found is None:
            if len(self._named) >= _MOST_NAMED:
                return UNNUMBERED
            found = self._named[number, name] = next_number()
        return found


def fits(payload: Payload, tenant: bytes) -> bool:
    """Whether a payload fits into a message with `tenant`, without a segment."""
    return not payload.buffers and len(payload.stream) + len(tenant) <= INLINE


def _are_plain(values: Any, depth: int = _NESTED_AT_MOST) -> bool:
    """Whether pickling these values is quick and runs no code but pickle's own."""
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            if (kind is str or kind is bytes) and len(value) > _MOST_PREFETCHED:
                return False
            continue
        if not depth or not (kind is tuple or kind is list or kind is dict) or len(value) > _MOST_PREFETCHED:
            return False
        if not _are_plain(value, depth - 1) or (kind is dict and not _are_plain(value.values(), depth - 1)):
            return False
    return True
