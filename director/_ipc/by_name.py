"""How a function gets from one process to another: by its name if it has one, else by value.

A decorated function is often not found under its own name, which leads to the wrapper (`Director.function` makes one).
It is sent as that name and the number of `__wrapped__` steps to the function.
"""

from __future__ import annotations

import pickle
import sys
from functools import partial
from importlib import import_module
from itertools import count
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from director._ipc import main_module
from director._ipc.pickling import Payload, can_send_by_value, wrap
from director._untrusted import objects as _user_objects

if TYPE_CHECKING:
    from collections.abc import Callable

_WRAPPED_AT_MOST = 16  # most decorators on one function
_numbers = count()
_REMEDY = "Define functions and classes at the top level of a module of their own, or send plain values"
_INSTALL = ", or install gpu-director[process], which sends lambdas and local functions too"
# The name of the main module as a pickle has it, and no longer text that only mentions it.
_ABOUT_MAIN = (
    "it was defined at the prompt, in a notebook, or in the __main__ of a package, a folder or a zip file, "
    "which another process can't import"
)
_NAMES_MAIN = b"\x8c\x08__main__"
_named: dict[FunctionType, Name] = {}  # functions of modules, never removed; written by any thread


def name_of(fn: Any) -> Name | None:
    """The name of a function by which a child finds it; `None` if there is none."""
    if type(fn) is not FunctionType:
        return None
    name = _named.get(fn)
    if name is None:
        found = _search(fn)
        if found is not None:
            name = _named.setdefault(fn, Name(next(_numbers), found))
    return name


def known_number(fn: Any) -> int | None:
    """The number of a function that `name_of` has named before. Reads no attribute of the function."""
    name = _named.get(fn) if type(fn) is FunctionType else None
    return None if name is None else name.number


def next_number() -> int:
    """A number that no function has."""
    return next(_numbers)


class Name(NamedTuple):
    """A function that a child finds by its name.

    Args:
        number: Its number in calls to a child that has received it.
        sendable: What to pickle.
    """

    number: int
    sendable: Any


def sendable(fn: Any, named: Callable[[Any], Name | None] = name_of) -> Any:
    """What to pickle for the function `fn`: itself, or what finds it by the name that `named` returns."""
    if type(fn) is partial:
        inner = sendable(fn.func, named)
        return fn if inner is fn.func else partial(inner, *fn.args, **fn.keywords)
    name = named(fn)
    return fn if name is None else name.sendable


class Wrapped:
    """A function that is found by name beneath decorators; unpickles as the function itself."""

    def __init__(self, module: str, name: str, depth: int) -> None:
        self._path = module, name, depth

    def __reduce__(self) -> Any:
        return _unwrap, self._path

    def __call__(self) -> None:
        """Never called: `functools.partial` requires a callable."""


def pack(value: Any, what: Callable[[], str], is_stranger: bool = False) -> Payload:
    """`value` as a payload, with classes and functions by value if the other side can't import them.

    Args:
        value: Anything.
        what: Its name in the error.
        is_stranger: The other side can't import our `__main__`; see `main_module.origin`.

    Raises:
        PicklingError: It can't be sent.
    """
    try:
        payload = wrap(value)
        if not (is_stranger and _NAMES_MAIN in payload.stream):
            return payload
        reason: Exception = pickle.PicklingError(_ABOUT_MAIN)
    except Exception as error:  # noqa: BLE001 - raised by a class of the user's
        reason = error
    remedy = _REMEDY
    if can_send_by_value():
        try:
            return wrap(value, by_value=True)
        except Exception as error:  # noqa: BLE001 - the same
            reason = error
    else:
        remedy += _INSTALL
    message = f"{what()} can't be sent to another process: {describe(reason)}. {remedy}"
    raise pickle.PicklingError(message) from reason


def describe(error: BaseException) -> str:
    """The type and text of an exception in one line, even if it can't be turned into text."""
    return (_user_objects.describe(error).strip().splitlines() or ["?"])[0]


def _search(fn: FunctionType) -> Any:
    """`fn` if its name leads to it, a `Wrapped` if it does beneath decorators, else `None`.

    `None` too if it is in a main module that no child can import.
    """
    if fn.__module__ == main_module.MAIN and main_module.origin() is None:
        return None
    try:
        found: Any = _resolve(fn.__module__, fn.__qualname__, sys.modules.__getitem__)
    except (KeyError, AttributeError):
        return None
    for depth in range(_WRAPPED_AT_MOST):
        if found is fn:
            return Wrapped(fn.__module__, fn.__qualname__, depth) if depth else fn
        found = getattr(found, "__wrapped__", None)
    return None


def _unwrap(module: str, name: str, depth: int) -> Any:
    found = _resolve(module, name, import_module)
    for _ in range(depth):
        found = found.__wrapped__
    return found


def _resolve(module: str, name: str, find: Any) -> Any:
    found = find(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
