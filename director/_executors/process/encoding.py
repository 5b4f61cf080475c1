"""One call on its way to a child, and what is sent of it: its function by number once the child knows it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from director._executors.process.termination import Termination
from director._executors.remote.replicas import ModelSpec
from director._executors.remote.runner import CallState, PendingCall
from director._ipc import main_module as program
from director._ipc.by_name import known_number, name_of, pack, sendable
from director._ipc.frames import INLINE, RequestKind
from director._ipc.pickling import Payload, wrap
from director._ipc.protocol import UNNUMBERED, CallStyle, Facts

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from director._ipc.frames import Answer
    from director._ipc.shared_page import Notice, SharedPage
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model

_FIRST_CALL, _CALL = RequestKind.FIRST_CALL, RequestKind.CALL  # an enum's member takes a search each time
_SENT = CallState.SENT
_SILENCE = 10.0  # seconds in which a child that has nothing else to do takes a call, if it is not stopped or stuck
_BOOTING = 60.0  # the same for one that is just being started, on a slow disk
_SECOND_LOOK = 1.0  # seconds more: this process may have been stopped, or the machine, and the child with it
_AHEAD_AT_MOST = 1 << 12  # bytes of content of a call that is sent ahead of its turn
_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None)})
_NESTED_AT_MOST = 4


class Child(Protocol):
    """What a call, and its message, need of the child that makes it."""

    known: set[int]
    """Numbers of the functions that it has."""
    loaded: set[int]
    """And of the models."""
    page: SharedPage

    def is_waiting(self, call: PendingCall) -> bool:
        """Whether the child has not received the message of a call."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""


Maker = TypeVar("Maker", bound=Child)


class ProcessCall(PendingCall, Generic[Maker]):
    """A call, and the child that makes it. The slot's thread's, but for `notify` and `end`, which the loop calls.

    Args:
        jobs: Whose; with several of them it is a batch.
        fn: The function.
        args: Its arguments but for the resource.
        style: In which way it is called.
    """

    child: Maker | None = None  # to which it was sent last
    function: int | None = None  # its number, once it is sent by it
    is_typical = True  # it says something about the next one's time
    began = 0.0
    taken = 0  # of a stream: values that were received, and segments
    refusal: BaseException | None = None  # of the reader of a stream
    answer: Answer | None = None  # its last one, if that came before its turn
    _termination: Termination | None = None
    _silent_until = math.inf
    _was_silent = False

    def __init__(
        self, jobs: list[ScheduledJob[Any]], fn: Any, args: tuple[Any, ...], style: CallStyle = CallStyle.WITH_RESOURCE
    ) -> None:
        super().__init__(jobs)
        self.fn = fn
        self.args = args
        self.style = style

    def words(self) -> str:
        """How errors name it."""
        return f"the call of {self.jobs[0].name}"

    def begin(self, now: float, is_ready: bool) -> None:
        """Its turn has come."""
        self.began = now
        self._silent_until = now + (_SILENCE if is_ready else _BOOTING)

    def notify(self, notice: Notice) -> None:
        """Tell the call that all its callers have left; one that is not on its way is told when it is sent."""
        if (child := self.child) is not None:
            child.page.post(self.number, notice)

    def end(self, moment: float, grace: float) -> None:
        """Bring the call to its end, beginning at `moment`."""
        termination = self._termination or Termination(grace)
        termination.begin(moment)
        self._termination = termination  # last: the slot's thread may be looking

    def next_look(self) -> float:
        """The time at which to `hurry`; infinite for never."""
        termination = self._termination
        return self._silent_until if termination is None else min(self._silent_until, termination.next)

    def hurry(self, child: Child) -> None:
        """Do what is due.

        Raises:
            Unkillable: The child does not end, whatever is done.
        """
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = math.inf
            if self.state is _SENT and child.is_waiting(self):
                if self._was_silent:
                    self.end(now, 0.0)
                else:
                    self._was_silent, self._silent_until = True, now + _SECOND_LOOK
        if self._termination is not None:
            self._termination.escalate(now, child.signal)


class CallMessage(NamedTuple):
    """What is sent of a call.

    Args:
        kind: Whether the child knows the function.
        function, model: Their numbers.
        facts: Of the job.
        payload: The content; `None` for none.
    """

    kind: RequestKind
    function: int
    model: int
    facts: Facts
    payload: Payload | None

    @property
    def introduces(self) -> bool:
        """Whether the child meets the function by it, and may have to import its module first."""
        return self.kind is _FIRST_CALL and self.function != UNNUMBERED


class ModelNumbers:
    """The numbers by which children know models. The slot's thread's."""

    def __init__(self) -> None:
        self._models: list[Model[Any]] = []
        self._numbers: dict[int, int] = {}  # by identity: a class may define what is equal

    def number(self, model: Model[Any]) -> int:
        """The number of a model, the same ever after."""
        number = self._numbers.get(id(model))
        if number is None:
            number = self._numbers[id(model)] = len(self._models)
            self._models.append(model)
        return number

    def by_number(self, number: int) -> Model[Any]:
        """The model again."""
        return self._models[number]


class CallEncoder:
    """Makes messages, from what the children of a slot know.

    Args:
        models: Their numbers.
        time: The Director's clock.
    """

    def __init__(self, models: ModelNumbers, time: Callable[[], float]) -> None:
        self._models = models
        self._time = time
        self._is_prompt = program.origin() is None  # our main module can't be imported

    def encode(self, call: ProcessCall[Any], child: Child) -> CallMessage:
        """What to send of a call whose turn has come.

        Raises:
            PicklingError: It can't be sent.
        """
        job, args = call.jobs[0], call.args
        model, options = UNNUMBERED, job.options
        if options.model is not None:
            model = self._models.number(options.model)
        function = UNNUMBERED
        if call.style <= CallStyle.BATCH and options.name is None and (name := name_of(call.fn)) is not None:
            function = call.function = name.number
            if function in child.known and (model == UNNUMBERED or model in child.loaded):
                payload = pack(args, call.words, self._is_prompt) if args else None
                return CallMessage(_CALL, function, model, self._facts(job), payload)
        made_by = None if options.model is None else recipe(options.model)
        content = sendable(call.fn), job.name, args, made_by
        return CallMessage(_FIRST_CALL, function, model, self._facts(job), pack(content, call.words, self._is_prompt))

    def encode_ahead(self, call: ProcessCall[Any], child: Child) -> CallMessage | None:
        """What to send of a call before its turn, in the midst of another; `None` if it is not fit for that.

        No code of the user's runs: it could raise, or block, in a call that has nothing to do with it.
        """
        try:
            return self._ahead(call, child)
        except Exception:  # noqa: BLE001 - a list that another thread changes, say: it will be raised in its own turn
            return None

    def _ahead(self, call: ProcessCall[Any], child: Child) -> CallMessage | None:
        job = call.jobs[0]
        options, function, model = job.options, known_number(call.fn), UNNUMBERED
        if function is None or options.name is not None or function not in child.known or not _are_plain(call.args):
            return None
        if options.model is not None:
            model = self._models.number(options.model)
            if model not in child.loaded:
                return None
        payload = wrap(call.args) if call.args else None
        if payload is not None and len(payload.stream) > _AHEAD_AT_MOST:
            return None
        return CallMessage(_CALL, function, model, self._facts(job), payload)

    def _facts(self, job: ScheduledJob[Any]) -> Facts:
        started = job.started_at
        if started is None:  # it is sent ahead of its turn
            return Facts(job.id, job.options.priority, job.attempts + 1, self._time() - job.submitted_at)
        return Facts(job.id, job.options.priority, job.attempts, started - job.submitted_at)


def fits(payload: Payload | None) -> bool:
    """Whether a message takes all of it."""
    return payload is None or (not payload.buffers and len(payload.stream) <= INLINE)


def recipe(model: Model[Any]) -> ModelSpec:
    """What a child needs of a model."""
    return ModelSpec(sendable(model.load), sendable(model.warmup), sendable(model.unload), model.name)


def _are_plain(values: Any, depth: int = _NESTED_AT_MOST) -> bool:
    """Whether pickling these runs no code but pickle's own, and is quick."""
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            if (kind is str or kind is bytes) and len(value) > _AHEAD_AT_MOST:
                return False
            continue
        if not depth or not (kind is tuple or kind is list or kind is dict) or len(value) > _AHEAD_AT_MOST:
            return False
        if not _are_plain(value, depth - 1) or (kind is dict and not _are_plain(value.values(), depth - 1)):
            return False
    return True
