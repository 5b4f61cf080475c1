"""A function with its options bound once, and perhaps its batches."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from director._api.option_names import STREAM, refuse_options, take
from director._api.validation import check_call, is_hashable, merged_options
from director._jobs.job import JobExtras
from director._untrusted.callables import keywords_of, suspension_of
from director._untrusted.numbers import MOST_COST, real, shown
from director._untrusted.objects import is_a, name_of, wrap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
    from typing import TypeGuard, Unpack

    from director._api.stream import Stream
    from director._jobs.job import Job
    from director._jobs.options import BatchRule, JobOptions, StreamOptions

    class FunctionDirector(Protocol):
        """What a function asks of its Director."""

        _run_waits: bool
        """Whether an awaited call is queued though too many wait."""
        _submit_waits: bool
        """Whether a submitted call is."""

        def _stream(self, fn: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Stream[Any]:
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


P = ParamSpec("P")
T = TypeVar("T", covariant=True)
Item = TypeVar("Item", contravariant=True)
Each = TypeVar("Each")
Value = TypeVar("Value")


class FunctionOfItem(Protocol[Item, Value]):
    """For type checkers: a `Function` that can be called with one item."""

    def submit(self, item: Item, /) -> Job[Value]:
        """See `Function.submit`."""


class Function(Generic[P, T]):
    """What `Director.function` makes: call it like a coroutine function of everything but the resource.

    With `max_batch_size` it is called with one item and returns that item's result, while `fn` gets lists.

    Args:
        director: Runs it; need not be started yet.
        fn: ``fn(resource, *args, **kwargs)``, blocking; for batches ``fn(resource, items)``, with one result for each
            item.
        options: As for `Director.submit`.
        rule: How its calls share batches; `None`: never.
        settings: `buffer`, `on_slow_reader` and `slow_reader_timeout` of its streams, as far as they are given.
    """

    __wrapped__: Callable[..., Any]
    """The function itself."""

    def __init__(
        self,
        director: FunctionDirector,
        fn: Callable[..., Any],
        options: JobOptions,
        rule: BatchRule | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        wrap(self, fn)
        self._director = director
        self._fn = fn
        self._options = options
        self._rule = rule
        self._settings = settings or {}
        self._streams = suspension_of(fn) is not None

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it and return its result; waits for room in the queue. As `Director.run`.

        Keywords go to the function, and options to `with_options`.

        Raises:
            TypeError: A keyword is the name of an option and the function has no such parameter; or a function of
                batches is called with anything but one positional item.
        """
        return await self._open(args, kwargs, self._director._run_waits)

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Queue a call and return its handle at once. As `Director.submit`; keywords as for a call."""
        return self._open(args, kwargs, self._director._submit_waits)

    @overload
    def map(
        self: FunctionOfItem[Each, Value],
        items: Iterable[Each] | AsyncIterable[Each],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
    ) -> AsyncGenerator[Value, None]: ...

    @overload
    def map(
        self: FunctionOfItem[Each, Value],
        items: Iterable[Each] | AsyncIterable[Each],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool,
    ) -> AsyncGenerator[Value | BaseException, None]: ...

    def map(
        self: Any,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[Any, None]:
        """Run it for each item and yield the results. As `Director.map`; the function gets no keywords."""
        if kwargs:
            raise TypeError(
                f"{name_of(self._fn)}.map() passes the function an item and no keywords, not {', '.join(kwargs)}: bind "
                "them with functools.partial, and options with with_options"
            )
        if self._streams:
            check_call(self._fn)
        return cast("FunctionDirector", self._director)._map(
            lambda item: self._open((item,), {}, True), items, window, ordered, return_exceptions, self._rule
        )

    def stream(self: Function[P, Iterator[Value]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[Value]:
        """Queue it, a generator function, and return its values as they come. As `Director.stream`.

        Keywords go to the function. `buffer`, `on_slow_reader` and `slow_reader_timeout` are options of the stream
        unless the function has such a parameter; `with_options` and `Director.function` bind them.
        """
        if self._rule is not None:
            raise TypeError(f"{self._rule.name} takes batches and a stream is one call: bind it without max_batch_size")
        mine = kwargs and [name for name in STREAM if name in kwargs and not self._takes(name)]
        settings = {**self._settings, **take(kwargs, mine)} if mine else self._settings
        fn = self._with(kwargs) if kwargs else self._fn
        return self._director._stream(fn, args, {**self._options, **settings})

    def with_options(self, **options: Unpack[StreamOptions]) -> Function[P, T]:
        """The same function with further or other options, for one call or many; they share batches with the rest.

        Such as ``await f.with_options(tenant=user, deadline=0.5)(item)``.

        Args:
            options: As for `Director.submit` and `Director.stream`; they count before those of this function, `None`
                too.

        Raises:
            TypeError: An unknown option, or one of the wrong type.
            ValueError: An option out of range.
        """
        given: dict[str, Any] = {**options}
        other: Function[P, T] = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._settings = {**self._settings, **take(given, STREAM)}
        other._options = merged_options(self._options, given)
        return other

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any], waits: bool) -> Job[T]:
        if self._streams:
            check_call(self._fn)
        fn = self._with(kwargs) if kwargs else self._fn
        return self._director._open_call(fn, args, self._options, waits, self._rule)

    def _with(self, kwargs: dict[str, Any]) -> Callable[..., Any]:
        """The function with keywords; they cross to other processes as any partial does."""
        if self._rule is not None:
            given = ", ".join(kwargs)
            raise TypeError(f"{self._rule.name} takes batches: call it with one positional item, without {given}")
        refuse_options(name_of(self._fn), [name for name in kwargs if not self._takes(name)])
        return partial(self._fn, **kwargs)

    def _takes(self, name: str) -> bool:
        return self._keywords is None or name in self._keywords

    @cached_property
    def _keywords(self) -> frozenset[str] | None:
        return keywords_of(self._fn)

    def __repr__(self) -> str:
        return f"<Function {name_of(self._fn)!r} of {self._director!r}>"


def is_function_of(director: FunctionDirector, fn: Any) -> TypeGuard[Function[..., Any]]:
    """Whether `fn` is a `Function` of `director`; else it is a function that blocks.

    Raises:
        ValueError: It is one of another Director.
        TypeError: It is no function, or one that makes generators or coroutines.
    """
    if not is_a(fn, Function):
        check_call(fn)
        return False
    if fn._director is not director:
        raise ValueError(
            f"{fn!r} belongs to another Director than {director!r}: call it itself, or give its __wrapped__"
        )
    return True


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
