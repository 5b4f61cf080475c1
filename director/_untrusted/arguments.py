"""Users' arguments as our own: a text, a word, a bool, a function; or a refusal that says what it must be."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from director._untrusted.callables import suspension_of
from director._untrusted.numbers import shown
from director._untrusted.objects import name_of, plain

W = TypeVar("W", bound="str | None")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def text(name: str, value: Any) -> str:
    """A `str`.

    Raises:
        TypeError: It is none.
    """
    found = plain(value)
    if found is None:
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    return found


def file_name(name: str, value: Any) -> str:
    """A name that all processes give which share something: it becomes part of the names of files.

    Raises:
        TypeError: It is no `str`.
        ValueError: It can't be part of a file name.
    """
    found = plain(value)
    if found is None:
        raise TypeError(f"{name} must be a name that all processes give, a str, not {shown(value)}")
    if not _FILE_NAME.fullmatch(found):
        raise ValueError(f"{name} must be letters, digits, '.', '_' and '-', 64 at most, not {shown(found)}")
    return found


def choice(name: str, value: Any, words: tuple[W, ...]) -> W:
    """One of several words; `None` may be one of them.

    Raises:
        ValueError: It is none of them.
    """
    found: Any = plain(value)
    if (found is not None or value is None) and found in words:
        return found  # type: ignore[no-any-return]
    *others, last = map(repr, words)
    raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {shown(value)}")


def truth(name: str, value: Any, kind: str = "True or False") -> bool:
    """A bool.

    Raises:
        TypeError: It is none.
    """
    if type(value) is not bool:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    return value


def check_callable(name: str, value: Any, kind: str) -> None:
    """Refuse what can't be called.

    Args:
        name: Of the option.
        value: What was given.
        kind: What it must be, in words, such as ``"a callable of one item"``.

    Raises:
        TypeError: It can't be.
    """
    if not callable(value):
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")


def check_blocking(name: str, value: Any, kind: str) -> None:
    """As `check_callable`; also refuse what a call would only begin.

    Raises:
        TypeError: It can't be called, or makes generators or coroutines.
    """
    check_callable(name, value, kind)
    if suspended := suspension_of(value):
        raise TypeError(f"{name} must be a blocking function, not the {suspended} function {name_of(value)}")
