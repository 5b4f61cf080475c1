"""A function with its options bound once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable

    from director._core.job import Job
    from director._director import Director
    from director._options import JobOptions

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class Function(Generic[*Ts, T]):
    """What `Director.function` makes: call it like a coroutine function of everything but the resource.

    Args:
        director: Runs it; need not be started yet.
        fn: ``fn(resource, *args)``, blocking.
        options: As for `Director.submit`.
    """

    def __init__(self, director: Director, fn: Callable[[Any, *Ts], T], options: JobOptions) -> None:
        if not callable(fn):
            raise TypeError(f"director.function() binds options to a callable, not to {fn!r}")
        functools.update_wrapper(self, fn)
        self._director = director
        self._fn = fn
        self._options = options

    async def __call__(self, *args: *Ts) -> T:
        """Run it and return its result; waits for room in the queue. As `Director.run`."""
        return await self._director.run(self._fn, *args, **self._options)

    def submit(self, *args: *Ts) -> Job[T]:
        """Queue a call and return its handle at once. As `Director.submit`."""
        return self._director.submit(self._fn, *args, **self._options)

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[T, None]:
        """Run it for each item and yield the results. As `Director.map`."""
        fn: Callable[[Any, Any], T] = self._fn
        return self._director.map(
            fn, items, window=window, ordered=ordered, return_exceptions=return_exceptions, **self._options
        )

    def __repr__(self) -> str:
        return f"<Function {getattr(self._fn, '__name__', self._fn)!r} of {self._director!r}>"
