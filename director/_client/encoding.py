"""Jobs, functions and models as they are sent to the server; see `director._ipc.server.job_head`."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from itertools import count
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from director._ipc import main_module
from director._ipc.by_name import name_of, sendable
from director._ipc.server.body import content_of
from director._ipc.server.calls import apply, apply_plain
from director._ipc.server.job_head import FunctionHead, JobHead, ModelHead, Style
from director._ipc.server.peer import Kind
from director._ipc.server.traces import trace_of
from director._jobs.calls import LocalCall, StreamCall, load_only
from director._untrusted import objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._ipc.server.body import Content
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import BatchRule

_PLAIN = (str, int, float, bool, bytes, type(None))
_AT_ONCE = 0.01  # seconds
_RULE = ("max_size", "max_wait", "max_cost", "padded", "window", "isolate_failures")
_sources: dict[str, bytes | None] = {}  # by module


class Named:
    """A function or model with a number, as a server is told of it before the first job that has it.

    Args:
        kind: FUNCTION or MODEL.
        number: Its number, of this application.
        head: Plain values.
        content: What the slots' threads unpickle.
        owner: Has `collected` called when it is collected.
    """

    __slots__ = ("_owner", "content", "head", "kind", "number")

    def __init__(self, kind: int, number: int, head: tuple[Any, ...], content: Content, owner: Any) -> None:
        self.kind = kind
        self.number = number
        self.head = head
        self.content = content
        self._owner = owner


class PackedJob(NamedTuple):
    """A job, ready to be sent.

    Args:
        named: Its function and model.
        head: Its options.
        batch_key, batch_cost, stream: See `JobParts`.
        content: Its arguments.
    """

    named: tuple[Named, ...]
    head: JobHead
    batch_key: Any
    batch_cost: float
    stream: tuple[int, float, bool] | None
    content: Content


class Encoder:
    """Packs jobs; gives functions and models their numbers, which are the same for all servers. For any thread.

    Pickling runs code of the user's classes, so no lock is held meanwhile. Two threads may name the same function at
    once: the first one's number counts.

    Args:
        slots_of: The slots that may load a model, by what `Model.devices` names; `None` for all.
        time: The Director's clock.
        forgotten: Called with the number of a model or batch function that was collected, on any thread, within
            anything.
    """

    def __init__(
        self,
        slots_of: Callable[[Model[Any]], frozenset[int] | None],
        time: Callable[[], float],
        forgotten: Callable[[int], None],
    ) -> None:
        self._slots_of = slots_of
        self._time = time
        self._forgotten = forgotten
        self._is_prompt = main_module.origin() is None  # the server can't import our main module
        self._numbers = count()
        self._named: dict[Any, Named] = {}  # by number of the name and identity of the rule, or by key of the model

    def pack(self, job: ScheduledJob[Any], waits: bool) -> PackedJob:
        """Pack a job.

        Args:
            job: The job.
            waits: Queued though the queue is full.

        Raises:
            PicklingError: It can't be sent.
            ValueError: Its tenant or batch key is no plain value.
        """
        options, extras = job.options, job.extras
        fn, args, style, stream = self._call_of(job)
        rule = options.batch_rule
        has_no_function = style in (Style.LEASE, Style.LOAD)
        function, given = (None, args) if has_no_function else self._function(fn, args, rule, style)
        model = None if options.model is None else self.model(options.model)
        head = JobHead(
            -1 if function is None else function.number,
            -1 if model is None else model.number,
            int(style),
            options.name or (job.name if name_of(fn) is None else None),
            options.priority,
            options.timeout,
            plain("tenant", options.account),
            options.retries - (0 if extras is None else min(extras.failed_attempts, options.retries)),
            options.backoff,
            self._left(options.deadline, job),
            None if options.allowed is None else tuple(sorted(options.allowed)),
            waits,
            options.memory,
            self._left(options.start_within, job),
        )
        key, cost = (None, 0.0) if extras is None else (plain("batch_key", extras.batch_key), extras.batch_cost)
        arguments: tuple[Any, ...] = given, options.retry_on if options.retries else ()
        if (trace := trace_of(job, self._time())) is not None:
            arguments = *arguments, trace
        content = content_of(arguments, job_name(job), self._is_prompt)
        named = tuple(named for named in (function, model) if named is not None)
        return PackedJob(named, head, key, cost, stream, content)

    def _left(self, seconds: float | None, job: ScheduledJob[Any]) -> float | None:
        """Seconds from now, of an option that counts from the submission; equal for jobs that are sent at once."""
        if seconds is None or (gone := self._time() - job.submitted_at) < _AT_ONCE:
            return seconds
        return max(0.0, seconds - gone)

    def _call_of(self, job: ScheduledJob[Any]) -> tuple[Any, tuple[Any, ...], Style, tuple[int, float, bool] | None]:
        fn, args = job.fn, job.payload
        if isinstance(fn, StreamCall):
            return fn.func, args, Style.STREAM, fn.channel.settings()
        if isinstance(fn, LocalCall):
            given = fn.given()
            return (None, (), Style.LEASE, None) if given is None else (given, (), Style.PLAIN, None)
        if fn is load_only:
            return None, (), Style.LOAD, None
        return fn, args, Style.WITH_RESOURCE if job.options.batch_rule is None else Style.BATCH, None

    def _function(
        self, fn: Any, args: tuple[Any, ...], rule: BatchRule | None, style: Style
    ) -> tuple[Named, tuple[Any, ...]]:
        """A function and what it gets: one without a name travels with its arguments."""
        if rule is None and name_of(fn) is None:
            caller = apply_plain if style is Style.PLAIN else apply
            return self._known(caller, None, module_of(fn)), (sendable(fn), *args)
        return self._known(fn, rule, module_of(fn)), args

    def _known(self, fn: Any, rule: BatchRule | None, module: str | None) -> Named:
        name = name_of(fn)
        key = -1 if name is None else name.number, id(rule), module
        if (named := self._named.get(key)) is not None:
            return named
        settings = None if rule is None else {setting: getattr(rule, setting) for setting in _RULE}
        head = FunctionHead(objects.name_of(fn), module, source_of(module), settings)
        content = content_of(sendable(fn), lambda: objects.name_of(fn), self._is_prompt)
        return self._name(key, Kind.FUNCTION, tuple(head), content, rule)

    def model(self, model: Model[Any]) -> Named:
        """A model with its number."""
        if (named := self._named.get(model._key)) is not None:
            return named
        allowed = self._slots_of(model)
        module = module_of(model.load)
        functions = [sendable(fn) for fn in (model.load, model.warmup, model.unload, model.around)]
        head = ModelHead(
            model.name,
            model.replicas,
            model.per_slot,
            model.memory,
            model.pin,
            model.load_alone,
            model.around is not None,
            None if allowed is None else tuple(sorted(allowed)),
            module,
            source_of(module),
        )
        content = content_of(functions, lambda: f"the model {model.name}", self._is_prompt)
        return self._name(model._key, Kind.MODEL, tuple(head), content, model)

    def _name(self, key: Any, kind: int, head: tuple[Any, ...], content: Content, owner: Any) -> Named:
        """Give what has no number yet one; it has it until `owner` is collected."""
        number = next(self._numbers)
        watched = None if owner is None else ref(owner, lambda _: self._collected(key))
        return self._named.setdefault(key, Named(kind, number, head, content, watched))

    def _collected(self, key: Any) -> None:
        if (named := self._named.pop(key, None)) is not None:
            self._forgotten(named.number)


def job_name(job: ScheduledJob[Any]) -> Callable[[], str]:
    """The name of a job in errors, when it is needed."""
    return lambda: f"the call of {job.name}"


def module_of(fn: Any) -> str | None:
    """The module that the server imports for a function, a method, or an instance of a class; `None`: none is known."""
    while type(fn) in (partial, MethodType):
        fn = fn.func if type(fn) is partial else fn.__func__
    if type(fn) is FunctionType:
        return None if name_of(fn) is None else fn.__module__
    return objects.module_name(fn if issubclass(type(fn), type) else type(fn)) or None


def source_of(module: str | None) -> bytes | None:
    """A digest of the source of a module, as it is when this is first asked; `None` if it has none."""
    if module is None:
        return None
    if module not in _sources:
        path = getattr(sys.modules.get(module), "__file__", None)
        try:
            _sources[module] = None if path is None else hashlib.sha256(Path(path).read_bytes()).digest()
        except OSError:
            _sources[module] = None
    return _sources[module]


def plain(option: str, value: Any) -> Any:
    """A value that the server can compare."""
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(plain(option, each) for each in value)
    if type(value) not in _PLAIN:
        raise ValueError(
            f"{option} must be a str, a number or a tuple of such with Director(server=...), because it is compared "
            "in another process; give its name or key"
        )
    return value
