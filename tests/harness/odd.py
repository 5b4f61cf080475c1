"""Exceptions and callables of which every question may raise, as the tests hand them to a Director."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import operator
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock

if TYPE_CHECKING:
    from collections.abc import Callable


class Refusal(BaseException):
    """Not an `Exception`: what guards with `except Exception` lets through."""


def refuse(*_: object, **__: object) -> Any:
    raise Refusal


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: str = "x"


class Closed(Exception):
    """Refuses every question and every attribute, but for what the interpreter takes by itself."""

    def __getattribute__(self, name: str) -> Any:
        raise Refusal(name)

    __setattr__ = __delattr__ = __str__ = __repr__ = __hash__ = __eq__ = __bool__ = __len__ = refuse  # type: ignore[assignment]
    __reduce__ = __reduce_ex__ = __iter__ = refuse  # type: ignore[assignment]
    __class__ = property(refuse)  # type: ignore[assignment]
    __traceback__ = __cause__ = __context__ = __suppress_context__ = property(refuse)  # type: ignore[assignment]


class Meta(type):
    __name__ = property(refuse)  # type: ignore[assignment]
    __module__ = __mro__ = property(refuse)  # type: ignore[assignment]
    __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = refuse  # type: ignore[assignment]


class OfMeta(Exception, metaclass=Meta):
    pass


class ShoutingStr(str):
    __slots__ = ()
    __str__ = __repr__ = __format__ = __len__ = __eq__ = __hash__ = refuse  # type: ignore[assignment]


class OddText(Exception):
    def __str__(self) -> str:
        return ShoutingStr("odd")


class NoText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Slotted(Exception):
    __slots__ = ("code",)


NoModule = type("NoModule", (Exception,), {"__module__": None})
EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "frozen": Frozen,
    "closed": Closed,
    "of a metaclass": OfMeta,
    "text of a subclass of str": OddText,
    "text that is no str": NoText,
    "slots": Slotted,
    "no module": NoModule,
    "huge": lambda: ValueError("x" * 1_000_000),
    "group": lambda: BaseExceptionGroup("g", [Closed(), ExceptionGroup("h", [OfMeta(), Frozen()])]),
    "stop": StopIteration,
    "cancelled": asyncio.CancelledError,
    "leaving": GeneratorExit,
    "exit": SystemExit,
}


class Self:
    """Leads to itself by every attribute."""

    def __call__(self, *_: object) -> int:
        return 5

    def __getattr__(self, _: str) -> Any:
        return self


class Odd:
    def __init__(self, name: Any) -> None:
        self.__name__ = name

    def __call__(self, *_: object) -> int:
        return 5


class Silent:
    __getattribute__ = __repr__ = __call__ = refuse  # type: ignore[assignment]


class Colour(enum.Enum):
    RED = 1

    def __call__(self, *_: object) -> int:
        return 5


CALLABLES = {
    "function": (refuse, "refuse"),
    "builtin": (len, "len"),
    "method": ([].append, "append"),
    "class": (dict, "dict"),
    "partial": (functools.partial(functools.partial(refuse, 1), 2), "refuse"),
    "getter": (operator.itemgetter(1), "itemgetter"),
    "mock": (Mock(), "Mock"),
    "magic mock": (MagicMock(), "MagicMock"),
    "leads to itself": (Self(), "Self"),
    "a number as name": (Odd(7), "Odd"),
    "a name of a subclass of str": (Odd(ShoutingStr("odd")), "odd"),
    "no name": (Odd(""), "Odd"),
    "a name too long": (Odd("n" * 1_000), "n" * 200),
    "refuses every attribute": (Silent(), "Silent"),
    "class of a metaclass": (OfMeta, "Meta"),
    "member": (Colour.RED, "Colour"),
}
