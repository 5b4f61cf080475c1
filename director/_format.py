"""Numbers and texts formatted for people, the quantile that is shown of many, and the colours of functions."""

from __future__ import annotations

import math
import zlib
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from director import errors
from director._untrusted.objects import ancestors, class_name, describe, is_a, members_of, module_name, type_name
from director._untrusted.objects import plain as exact_str

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

P = ParamSpec("P")
# Unicode categories that are escaped: control characters, invisible format characters (such as those that change the
# direction of text), lone surrogates (from a file name that is not UTF-8), separators of lines and paragraphs.
_NOT_SHOWN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def plain(text: str) -> str:
    r"""A line from any source, made safe for a terminal: ``"\x1b[2J"`` is shown as those characters, not executed."""
    if text.isprintable():
        return text
    from unicodedata import category  # not with the package: few lines need it

    return "".join(each.encode("unicode_escape").decode() if category(each) in _NOT_SHOWN else each for each in text)


def count(number: int) -> str:
    """``1797`` as ``"1,797"``."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """``1 item``, ``1,797 items``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """``0.974`` as ``"97.4 %"``."""
    return f"{share * 100:.1f} %"


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values don't exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rate(per_second: float) -> str:
    """Three digits and the unit: ``"560/s"``, ``"3.14/s"``, ``"0.021/s"``."""
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.3g}/s"


def duration(seconds: float) -> str:
    """Three digits and the unit: ``"850 µs"``, ``"3.42 ms"``, ``"1.20 s"``, ``"2 min 05 s"``, ``"1 h 02 min"``."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def about(seconds: float) -> str:
    """Whole seconds, for times that are updated on a screen: ``"4 s"``, ``"2 min 05 s"``."""
    return f"{round(seconds)} s" if seconds < 59.5 else duration(max(60.0, seconds))


def _three_digits(number: float) -> str:
    if number < 9.995:
        return f"{number:.2f}"
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


COLOURS = 8


def colours(names: Iterable[str]) -> dict[str, int]:
    """A colour for each name, from 0 to `COLOURS` - 1: the same for the same names, in whatever order they come.

    Each name has a colour that it prefers. Of those that prefer the same one, the first by the alphabet gets it, and
    the others get colours that are left; where there are none, they share theirs.
    """
    preferred = {name: zlib.crc32(name.encode("utf-8", "surrogatepass")) % COLOURS for name in sorted(names)}
    found: dict[str, int] = {}
    for name, colour in preferred.items():
        if colour not in found.values():
            found[name] = colour
    left = [colour for colour in range(COLOURS) if colour not in found.values()]
    for name, colour in preferred.items():
        if name not in found:
            found[name] = left.pop(0) if left else colour
    return found


_MOST_PARTS = 20  # of a container
_DEEPEST = 4
_LONGEST_PART = 1_000  # characters, or digits

_DICT = type.__dict__["__dict__"].__get__
_ARGS = BaseException.__dict__["args"].__get__
_MESSAGE = BaseExceptionGroup.__dict__["message"].__get__
_OS_FACTS = [OSError.__dict__[name].__get__ for name in ("errno", "strerror", "filename", "filename2")]


class _Unknown(Exception):
    """The text is only known by running code of the object."""


def known_text(error: BaseException, limit: int) -> str | None:
    """The message of an exception.

    `None` if its class or one of its arguments is not built in, so that user code would run.
    """
    try:
        text = _text(error)
    except _Unknown:
        return None
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def known_line(error: BaseException, limit: int) -> str:
    """The name of its class and the first line of its message, if `known_text` gives one."""
    text = known_text(error, limit)
    return f"{type_name(error)}: {text}"[:limit].partition("\n")[0] if text else type_name(error)


def known_repr(value: object, limit: int) -> str:
    """The `repr` of built-in values and of exceptions with built-in arguments; else the name of the class."""
    try:
        if not is_a(value, BaseException):
            return repr(_copy(value, 0))[:limit]
        given = _copy(_ARGS(value), 0)
    except _Unknown:
        return f"<{type_name(value)}>"
    shown = f"({given[0]!r})" if len(given) == 1 else repr(given)
    return f"{type_name(value)}{shown}"[:limit]


_LONGEST_TENANT = 120  # characters


def known_tenant(tenant: object) -> str:
    """A tenant as text: a str itself, cut if it is very long; anything else as `known_repr` has it."""
    text = exact_str(tenant)
    if text is None:
        return known_repr(tenant, _LONGEST_TENANT)
    return text if len(text) <= _LONGEST_TENANT else f"{text[: _LONGEST_TENANT - 1]}…"


def _text(error: BaseException) -> str:
    owner = next(each for each in ancestors(type(error)) if "__str__" in _DICT(each))
    if owner is BaseExceptionGroup:
        if (message := exact_str(_MESSAGE(error))) is None:
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
    """A copy of the value, if everything in it is of built-in types; long texts are cut.

    Raises:
        _Unknown: Something in it is of another type, or it is too large.
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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one that is most like it, if one is."""
    from difflib import get_close_matches  # only for an error

    close = get_close_matches(word, sorted(known), 1)
    return f", did you mean {close[0]}?" if close else ""


def names_meant(init: Callable[P, None]) -> Callable[P, None]:
    """An `__init__` whose error for an unknown keyword argument also says which one may be meant."""
    code = init.__code__
    known = frozenset(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs.keys() - known:
            called = type(args[0]).__name__
            raise TypeError(f"{called}() got an unexpected keyword argument {name!r}{did_you_mean(name, known)}")
        init(*args, **kwargs)

    return checked
