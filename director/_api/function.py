"""A function with its options bound once, and perhaps its batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, TypeVarTuple, cast

from director._api.validation import bound_options, is_hashable
from director._jobs.job import JobExtras
from director._untrusted.numbers import MOST_COST, real, shown
from director._untrusted.objects import name_of, wrap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
    from typing import Unpack

    from director._jobs.job import Job
    from director._jobs.options import BatchRule, JobOptions

    class FunctionDirector(Protocol):
        """What a function asks of its Director."""

        _run_waits: bool
        """Whether an awaited call is queued though too many wait."""
        _submit_waits: bool
        """Whether a submitted call is."""

        def stream(
            self,
            fn: Callable[..., Iterator[Value]],
            /,
            *args: Any,
            buffer: int,
            on_slow_reader: Literal["wait", "cancel"],
            slow_reader_timeout: float,
            **options: Unpack[JobOptions],
        ) -> AsyncGenerator[Value, None]:
            """See `Director.stream`."""

        def _open_call(
            self,
            fn: Callable[..., Value],
            args: tuple[Any, ...],
            options: JobOptions,
            waits: bool,
            rule: BatchRule | None,
        ) -> Job[Value]:
            """Queue a call."""

        def _map(
            self,
            open_job: Callable[[Any], Job[Value]],
            items: Iterable[Any] | AsyncIterable[Any],
            window: int | None,
            ordered: bool,
            return_exceptions: bool,
            rule: BatchRule | None = None,
        ) -> AsyncGenerator[Value, None]:
            """See `Director.map`."""


Ts = TypeVarTuple("Ts")
T = TypeVar("T", covariant=True)
Value = TypeVar("Value")


class Function(Generic[*Ts, T]):
    """What `Director.function` makes: call it like a coroutine function of everything but the resource.

    With `max_batch_size` it is called with one item and returns that item's result, while `fn` gets lists.

    Args:
        director: Runs it; need not be started yet.
        fn: ``fn(resource, *args)``, blocking; for batches ``fn(resource, items)``, with one result for each item.
        options: As for `Director.submit`.
        rule: How its calls share batches; `None`: never.
    """

    def __init__(
        self,
        director: FunctionDirector,
        fn: Callable[..., Any],
        options: JobOptions,
        rule: BatchRule | None = None,
    ) -> None:
        wrap(self, fn)
        self._director = director
        self._fn = fn
        self._options = options
        self._rule = rule

    async def __call__(self, *args: *Ts) -> T:
        """Run it and return its result; waits for room in the queue. As `Director.run`."""
        return await self._open(args, self._director._run_waits)

    def submit(self, *args: *Ts) -> Job[T]:
        """Queue a call and return its handle at once. As `Director.submit`."""
        return self._open(args, self._director._submit_waits)

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[T, None]:
        """Run it for each item and yield the results. As `Director.map`."""
        return self._director._map(
            lambda item: self._open((item,), True), items, window, ordered, return_exceptions, self._rule
        )

    def stream(
        self: Function[*Ts, Iterator[Value]],
        *args: *Ts,
        buffer: int = 16,
        on_slow_reader: Literal["wait", "cancel"] = "wait",
        slow_reader_timeout: float = 10.0,
    ) -> AsyncGenerator[Value, None]:
        """Run it, a generator function, and yield its values as they come. As `Director.stream`."""
        if self._rule is not None:
            raise TypeError(f"{self._rule.name} takes batches and a stream is one call: bind it without max_batch_size")
        fn = cast("Callable[[Any, *Ts], Iterator[Value]]", self._fn)
        return self._director.stream(
            fn,
            *args,
            buffer=buffer,
            on_slow_reader=on_slow_reader,
            slow_reader_timeout=slow_reader_timeout,
            **self._options,
        )

    def with_options(self, **options: Unpack[JobOptions]) -> Function[*Ts, T]:
        """The same function with further or other options, for one call or many; they share batches with the rest.

        Such as ``await f.with_options(tenant=user, deadline=0.5)(item)``.

        Args:
            options: As for `Director.submit`; they count before those of this function.

        Raises:
            TypeError: An unknown option, or one of the wrong type.
            ValueError: An option out of range.
        """
        return Function(self._director, self._fn, {**self._options, **bound_options(options)}, self._rule)

    def _open(self, args: tuple[Any, ...], waits: bool) -> Job[T]:
        return self._director._open_call(self._fn, args, self._options, waits, self._rule)

    def __repr__(self) -> str:
        return f"<Function {name_of(self._fn)!r} of {self._director!r}>"


def extra_of(rule: BatchRule, args: tuple[Any, ...]) -> JobExtras:
    """Key and cost of the item of a call, from `batch_key` and `batch_cost`."""
    if len(args) != 1:
        raise TypeError(f"{rule.name} takes batches: call it with one item (a tuple, if it has parts), not {len(args)}")
    if rule.key is None and rule.cost is None:
        return JobExtras()
    key = None if rule.key is None else rule.key(args[0])
    if not is_hashable(key):
        raise TypeError(f"batch_key of {rule.name} must return something hashable, not {shown(key)}")
    cost = 0.0 if rule.cost is None else rule.cost(args[0])
    if type(cost) is not float or not 0 <= cost <= MOST_COST:
        cost = real(f"what batch_cost of {rule.name} returns", cost, 0, MOST_COST)
    return JobExtras(rule.interner.key_of(key), cost)
