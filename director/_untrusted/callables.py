"""What a callable makes when it is called: a result, or a generator or coroutine that has not begun to run.

No function in here but `refuse_suspended` raises, and none runs code of the callable or its class.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any, Literal

from director._untrusted.objects import add_note, ancestors, is_a, is_ours, name_of, traceback_of

_GENERATOR, _COROUTINE, _ITERABLE_COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200  # as in `inspect`
SUSPENDS = _GENERATOR | _COROUTINE | _ITERABLE_COROUTINE | _ASYNC_GENERATOR
"""Flags of the code of functions whose call returns before their body has begun."""
SUSPENDED = frozenset({GeneratorType, CoroutineType, AsyncGeneratorType})
"""The classes of what these calls return."""

_STEPS = 16  # partials, methods and `__call__` around one function, at most
_FUNC = partial.__dict__["func"].__get__
_DICT = type.__dict__["__dict__"].__get__
_WRAPPERS = (staticmethod, classmethod)


def suspension_of(fn: Any) -> Literal["generator", "asynchronous generator", "coroutine"] | None:
    """What each call of `fn` makes; `None` if the call itself runs it.

    `fn` may be a function, a method, a partial, or an object of a class whose `__call__` is one of these.
    """
    for _ in range(_STEPS):
        if type(fn) is FunctionType:
            flags = fn.__code__.co_flags
            if flags & (_COROUTINE | _ITERABLE_COROUTINE):
                return "coroutine"
            if flags & _ASYNC_GENERATOR:
                return "asynchronous generator"
            return "generator" if flags & _GENERATOR else None
        if type(fn) is MethodType or type(fn) in _WRAPPERS:
            fn = fn.__func__
        elif is_a(fn, partial):
            fn = _FUNC(fn)
        else:
            fn = next((found["__call__"] for each in ancestors(type(fn)) if "__call__" in (found := _DICT(each))), None)
            if not (type(fn) in (FunctionType, *_WRAPPERS) or is_a(fn, partial)):
                return None
    return None


def keywords_of(fn: Any) -> frozenset[str] | None:
    """The names that `fn` takes by keyword beside its first argument; `None` for any, and if that is unknown."""
    from inspect import Parameter, signature  # a child process does not need it

    try:
        parameters = list(signature(fn).parameters.values())
    except BaseException:  # noqa: BLE001 - a builtin without one, or a class of the user's
        return None
    if parameters and parameters[0].kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        del parameters[0]
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
        return None
    return frozenset(
        each.name for each in parameters if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    )


def explain_resource(error: TypeError, fn: Any, resource: Literal["device", "replica"], is_batch: bool = False) -> None:
    """Add what the first argument of a job is to an error that its call itself has raised.

    Such as ``len() takes exactly one argument (2 given)``: the traceback has no frame of the function.
    """
    entry = traceback_of(error)
    while entry is not None:
        if not is_ours(entry.tb_frame):
            return
        entry = entry.tb_next
    name, args = name_of(fn), "items" if is_batch else "*args"
    add_note(
        error,
        f"director called {name}({resource}, {args}): the first argument of a job is its resource, the replica of its "
        f"model= or else the Device. A function without that parameter is wrapped, as in `lambda {resource}, {args}: "
        f"{name}({args})`, or called exactly as given by director.as_executor().",
    )


def refuse_suspended(value: Any, name: str) -> None:
    """Close a generator or coroutine that a call has returned as its result, on the thread of the call.

    Raises:
        TypeError: The function called `name` has returned one.
    """
    with suppress(BaseException):  # raised by a body that has begun
        if not is_a(value, AsyncGeneratorType):
            value.close()
    if is_a(value, CoroutineType):
        raise TypeError(f"{name} returned a coroutine: await it yourself, or give the Director a blocking function")
    raise TypeError(
        f"{name} returned a generator, which would compute on the thread that iterates over it: return a list, or give "
        "a generator function to stream()"
    )
