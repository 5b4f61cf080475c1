"""Context managers around calls, entered on the thread that makes the call: `around=` of Director and Model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.calls import LocalCall, StreamCall, load_only
from director._untrusted.arguments import check_callable
from director._untrusted.objects import name_of, repr_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import GeneratorType
    from typing import TypeAlias

    from director._jobs.job import JobExtras, ScheduledJob
    from director._jobs.options import Options

    Around: TypeAlias = "Callable[[], AbstractContextManager[object]]"


class AroundCall:
    """A function, called within a context manager. Can be pickled if both can."""

    def __init__(self, fn: Callable[..., Any], around: Around) -> None:
        self.fn = fn
        self.around = around

    @property
    def __name__(self) -> str:
        return name_of(self.fn)

    def __call__(self, *args: Any) -> Any:
        """Make the call."""
        with self.around():
            return self.fn(*args)

    def __reduce__(self) -> Any:
        from director._ipc.by_name import sendable

        return type(self), (sendable(self.fn), sendable(self.around))


class AroundGenerator(AroundCall):
    """The same of a generator function: the context manager is entered before the first value, and left at the end."""

    def __call__(self, *args: Any) -> GeneratorType[Any, Any, Any]:
        """The generator."""
        generator: GeneratorType[Any, Any, Any] = self._values(args)
        generator.__qualname__ = self.__name__
        return generator

    def _values(self, args: tuple[Any, ...]) -> Any:
        with self.around():
            yield from self.fn(*args)


def surrounding(submit: Callable[..., ScheduledJob[Any]], around: Around | None) -> Callable[..., ScheduledJob[Any]]:
    """`Backend.submit`, with the calls within the context managers of the Director and of their models."""

    def submit_surrounded(
        fn: Any,
        args: tuple[Any, ...],
        options: Options,
        patient: bool,
        extra: JobExtras | None = None,
        prepare: Callable[[ScheduledJob[Any]], None] | None = None,
    ) -> ScheduledJob[Any]:
        model = options.model
        for each in (None if model is None else model.around, around):  # the Director's is outside of the model's
            if each is not None:
                fn = _surround(fn, each)
        return submit(fn, args, options, patient, extra, prepare)

    return submit_surrounded


def _surround(fn: Any, around: Around) -> Any:
    if isinstance(fn, StreamCall):
        fn.func = AroundGenerator(fn.func, around)
        return fn
    if isinstance(fn, LocalCall):
        fn.surround(lambda call: AroundCall(call, around))
        return fn
    return fn if fn is load_only or not callable(fn) else AroundCall(fn, around)


def check_around(around: Any, is_sent: bool) -> None:
    """The argument of a Director or Model.

    Args:
        around: A callable without arguments, or `None`.
        is_sent: Its calls are made in child processes.

    Raises:
        TypeError: It can't be called, or can't be pickled where it is sent.
    """
    if around is None:
        return
    check_callable("around", around, "a callable that gives a context manager")
    if is_sent:
        from director._ipc.by_name import pack, sendable

        try:
            pack(sendable(around), lambda: "around")
        except Exception as error:
            raise TypeError(
                f"around={repr_of(around)} is entered in child processes, and can't be pickled for them ({error}); "
                "use a function or class at the top of a module, or functools.partial of one"
            ) from error
