"""What users' exceptions and values say, as far as that can be had without running any code of theirs. Never raises.

The event loop makes records and lines of logs out of this: a `__str__` or `__repr__` may take as long as it likes.
"""

from __future__ import annotations

from typing import Any

from director import errors
from director._user_objects import ancestors, class_name, describe, is_a, members_of, module_name, plain, type_name

_MOST_PARTS = 20  # of a container
_DEEPEST = 4
_LONGEST_PART = 1_000  # characters, or digits

_DICT = type.__dict__["__dict__"].__get__
_ARGS = BaseException.__dict__["args"].__get__
_MESSAGE = BaseExceptionGroup.__dict__["message"].__get__
_OS_FACTS = [OSError.__dict__[name].__get__ for name in ("errno", "strerror", "filename", "filename2")]


class _Unknown(Exception):
    """Only the object itself could say."""


def known_text(error: BaseException, limit: int) -> str | None:
    """What an exception says; `None` if its class, or what it was given, is the user's."""
    try:
        text = _text(error)
    except _Unknown:
        return None
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def known_line(error: BaseException, limit: int) -> str:
    """The name of its class and the first line of what it says, if that is known."""
    text = known_text(error, limit)
    return f"{type_name(error)}: {text}"[:limit].partition("\n")[0] if text else type_name(error)


def known_repr(value: object, limit: int) -> str:
    """What `repr` gives, of plain values and of exceptions with plain arguments; else the name of the class."""
    try:
        if not is_a(value, BaseException):
            return repr(_copy(value, 0))[:limit]
        given = _copy(_ARGS(value), 0)
    except _Unknown:
        return f"<{type_name(value)}>"
    shown = f"({given[0]!r})" if len(given) == 1 else repr(given)
    return f"{type_name(value)}{shown}"[:limit]


def _text(error: BaseException) -> str:
    owner = next(each for each in ancestors(type(error)) if "__str__" in _DICT(each))
    if owner is BaseExceptionGroup:
        if (message := plain(_MESSAGE(error))) is None:
            raise _Unknown
        count = len(members_of(error))
        return f"{message} ({count} sub-exception{'' if count == 1 else 's'})"
    given = _copy(_ARGS(error), 0)
    if owner is BaseException or owner is ImportError or owner is KeyError:
        if len(given) != 1:
            return repr(given) if given else ""
        return given[0] if type(given[0]) is str and owner is not KeyError else repr(given[0])
    if owner is OSError:
        _copy(tuple(fact(error) for fact in _OS_FACTS), 0)
        return OSError.__str__(error)
    if module_name(owner) == errors.__name__ and vars(errors).get(class_name(owner)) is owner:
        return describe(error)[len(type_name(error)) + 2 :]
    raise _Unknown


def _copy(value: Any, depth: int) -> Any:
    """The value, if all that is in it is of plain types; long texts are cut.

    Raises:
        _Unknown: Something in it isn't plain, or there is too much of it.
    """
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is str or kind is bytes:
        return value[:_LONGEST_PART] if depth else value[: 10 * _LONGEST_PART]
    if kind is int and value.bit_length() < _LONGEST_PART:
        return value
    if kind in (tuple, list, set, frozenset, dict) and len(value) <= _MOST_PARTS and depth < _DEEPEST:
        if kind is dict:
            return {_copy(key, depth + 1): _copy(part, depth + 1) for key, part in value.copy().items()}
        return kind(_copy(part, depth + 1) for part in value)
    raise _Unknown
