"""The functions, models and options that one application has told, resolved once. On the event loop only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from director._ipc.server.calls import RetriedCallRaised, call, call_plain
from director._ipc.server.job_head import JobHead, Style
from director._jobs.options import BatchRule, Options
from director.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._ipc.server.job_head import FunctionHead, ModelHead
    from director._jobs.model import Model
    from director._runtime.backend import Backend
    from director._server.models import ServedModels

_CALLS: dict[Style, Callable[..., Any]] = {Style.WITH_RESOURCE: call, Style.PLAIN: call_plain}


class Known(Protocol):
    """What all applications share of functions and models."""

    @property
    def backend(self) -> Backend:
        """The open Director."""

    @property
    def models(self) -> ServedModels:
        """The models."""

    def surround(self) -> None:
        """A model with `around` is used."""

    def rule(self, reference: bytes, head: FunctionHead) -> BatchRule:
        """The batch rule of a function."""

    def is_stale(self, module: str, source: bytes) -> bool:
        """Whether this process has another version of a module."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that an application has named.

    Args:
        name: Its name.
        reference: What the slots' threads unpickle.
        rule: Its batch rule.
        is_stale: This process has another version of its module.
    """

    name: str
    reference: bytes
    rule: BatchRule | None
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How jobs with the same options are queued.

    Args:
        style: How the function is called.
        options: The options.
        waits: Queued though the queue is full.
        reference: The function, as the slots' threads unpickle it; empty if the call needs none.
        call: What a slot calls with `reference` and the arguments of a job, if no job needs another one.
    """

    style: Style
    options: Options
    waits: bool
    reference: bytes
    call: Callable[..., Any] | None


class Plans:
    """What the jobs of an application refer to by numbers.

    Args:
        server: What the applications share.
    """

    def __init__(self, server: Known) -> None:
        self._server = server
        self._functions: dict[int, Function] = {}
        self._models: dict[int, tuple[Model[Any], frozenset[int] | None]] = {}
        self._stale_models: set[int] = set()
        self._heads: dict[int, JobHead] = {}
        self._plans: dict[int, Plan | None] = {}

    def add_function(self, number: int, head: FunctionHead, reference: bytes) -> None:
        """A function gets a number."""
        is_stale = self._is_stale(head.module, head.source)
        rule = None if head.rule is None else self._server.rule(reference, head)
        self._functions[number] = Function(head.name, reference, rule, is_stale)

    def add_model(self, number: int, head: ModelHead, reference: bytes) -> None:
        """A model gets a number. It may be told twice, by a finalizer that submits a job while it is told."""
        if number in self._models:
            return
        allowed = None if head.allowed is None else frozenset(head.allowed)
        if self._is_stale(head.module, head.source):
            self._stale_models.add(number)
        else:
            others = {model for model, _ in self._models.values()}
            self._models[number] = self._server.models.name(reference, head, others), allowed

    def add_options(self, number: int, head: JobHead) -> None:
        """Options get a number, which may have been that of others, whose jobs have all been submitted."""
        self._heads[number] = head
        self._plans.pop(number, None)

    def forget(self, number: int) -> None:
        """No job names the function or model with a number any more."""
        self._functions.pop(number, None)
        self._stale_models.discard(number)
        for of, head in [*self._heads.items()]:
            if number in (head.function, head.model):
                del self._heads[of]
                self._plans.pop(of, None)
        if (named := self._models.pop(number, None)) is not None:
            self._server.models.release(named[0])

    def clear(self) -> None:
        """The application has gone."""
        self._heads.clear()
        self._plans.clear()
        for model, _ in self._models.values():
            self._server.models.release(model)
        self._models.clear()

    def model(self, number: int) -> Model[Any] | None:
        """The model with a number; `None` if another server has it."""
        named = self._models.get(number)
        return None if named is None else named[0]

    def homes(self, number: int) -> tuple[int, ...] | None:
        """Numbers of the slots that load the model with a number; `None` for all, or if another server has it."""
        if (named := self._models.get(number)) is None:
            return None
        try:
            assigned = self._server.backend.assign(*named, None)
        except PlacementError:
            return None  # each load will raise it
        return None if assigned is None else tuple(sorted(assigned))

    def numbered(self, number: int) -> Plan | None:
        """See `plan`, for options with a number."""
        try:
            return self._plans[number]
        except KeyError:
            plan = self._plans[number] = self.plan(self._heads[number])
            return plan

    def plan(self, head: JobHead) -> Plan | None:
        """The plan of jobs with these options; `None` if this process has another version of their code.

        Raises:
            DirectorError: No device can run them.
        """
        function = self._functions[head.function] if head.function >= 0 else None
        if head.model in self._stale_models or (function is not None and function.is_stale):
            return None
        style = Style(head.style)
        options = self._options(head, function)
        call = None if options.batch_rule is not None else _CALLS.get(style)
        return Plan(style, options, head.waits, b"" if function is None else function.reference, call)

    def _options(self, head: JobHead, function: Function | None) -> Options:
        model, wanted = None, None if head.allowed is None else frozenset(head.allowed)
        if head.model >= 0:
            model, allowed = self._models[head.model]
            if model.around is not None:
                self._server.surround()
            assigned = self._server.backend.assign(model, allowed, wanted)
            if wanted is None or assigned is None:
                wanted = assigned if wanted is None else wanted
            elif not (wanted := wanted & assigned):
                raise PlacementError(f"{model!r} may not be loaded on any of the devices asked for")
        if model is not None or head.memory:
            wanted = self._server.backend.fitting(model, head.memory, wanted)
        return Options(
            model=model,
            priority=head.priority,
            deadline=head.deadline,
            timeout=head.timeout,
            allowed=wanted,
            name=head.name or ("lease" if function is None else function.name),
            tenant=head.tenant,
            batch_rule=None if function is None else function.rule,
            retries=head.retries,
            retry_on=(RetriedCallRaised,) if head.retries else (),
            backoff=head.backoff,
            memory=head.memory,
            start_within=head.start_within,
        )

    def _is_stale(self, module: str | None, source: bytes | None) -> bool:
        return module is not None and source is not None and self._server.is_stale(module, source)
