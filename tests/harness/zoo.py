"""Hostile objects: what a user may hand to a Director, meaning harm or not.

Each is made by its name, here or in a child process (`make`), so that it can be the result of a call in either. They
fall into kinds, for not every door takes every kind: `OBJECTS` (methods that raise, recurse, block, call the Director,
change their answers or return a wrong type; proxies and the like), `NUMBERS` and `ERRORS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import itertools
import sys
import threading
import time
import types
import weakref
from concurrent.futures import CancelledError as FutureCancelled
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import MagicMock, Mock

import director
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKED = 0.05  # seconds for which a method blocks
MOST_CALLS = 5  # of the Director in one cell: a hook that submits a job for each event would never end
DEEP = 100_000  # levels of something nested
HUGE = 4_000_000  # characters of a text


class ZooError(Exception):
    """What the methods of hostile objects raise."""


class Inside:
    """What a method that calls back finds: the Director of the cell that runs, if it lives in this process."""

    director: director.Director | None = None
    job: director.Job[Any] | None = None
    closing: asyncio.Task[None] | None = None
    may_close = False
    calls = 0


def call_back() -> None:
    """Ask the Director for everything that it may be asked for, on whichever thread this is; a few times in a cell."""
    it = Inside.director
    if it is None or Inside.calls == MOST_CALLS:
        return
    Inside.calls += 1
    with contextlib.suppress(Exception):
        it.stats()
    with contextlib.suppress(Exception):
        repr(it)
    with contextlib.suppress(Exception):
        it.submit(_five)
    with contextlib.suppress(Exception):
        if Inside.job is not None:
            Inside.job.cancel()


def close_director() -> None:
    """Begin to close it."""
    it = Inside.director
    if it is not None and Inside.may_close and Inside.closing is None:
        with contextlib.suppress(RuntimeError):  # on another thread
            loop = asyncio.get_running_loop()
            Inside.closing = loop.create_task(it.close(1.0))


def _five(*_: Any, **__: Any) -> int:
    return 5


class Thing:
    """Harmless, but for what its subclasses change: it can be called, and then returns 5."""

    def __call__(self, *_: Any, **__: Any) -> int:
        return 5


# ---- methods

_ORDINARY: dict[str, Callable[..., Any]] = {
    "__call__": _five,
    "__hash__": lambda self: object.__hash__(self),
    "__eq__": lambda self, other: self is other,
    "__repr__": lambda _: "a thing",
    "__str__": lambda _: "a thing",
    "__format__": lambda _, __: "a thing",
    "__bool__": lambda _: True,
    "__len__": lambda _: 1,
    "__iter__": lambda _: iter((1, 2)),
    "__next__": lambda _: 1,
    "__contains__": lambda _, __: False,
    "__getitem__": lambda _, __: 1,
    "__getattr__": lambda _, name: _no_such(name),
    "__getattribute__": lambda self, name: object.__getattribute__(self, name),
    "__setattr__": lambda self, name, value: object.__setattr__(self, name, value),
    "__reduce_ex__": lambda self, protocol: object.__reduce_ex__(self, protocol),
    "__getstate__": lambda _: None,
    "__setstate__": lambda _, __: None,
    "__copy__": lambda self: self,
    "__deepcopy__": lambda self, _: self,
    "__del__": lambda _: None,
    "__int__": lambda _: 1,
    "__index__": lambda _: 1,
    "__float__": lambda _: 1.0,
    "__neg__": lambda _: -1,
    "__add__": lambda _, __: 1,
    "__radd__": lambda _, __: 1,
    "__lt__": lambda _, __: False,
    "__gt__": lambda _, __: False,
    "__enter__": lambda self: self,
    "__await__": lambda _: iter(()),
    "__sizeof__": lambda _: 16,
    "__dir__": lambda _: [],
    "__fspath__": lambda _: "a",
}
_PROPERTIES = ("__class__", "__module__", "__name__", "__doc__", "__wrapped__", "__signature__", "__dict__")
_ATTRIBUTES = ("func", "nbytes", "shape", "wants", "result", "__code__", "__self__", "__array_interface__")
_CHANGES: dict[str, tuple[Any, Any]] = {
    "__hash__": (1, 2),
    "__eq__": (True, False),
    "__bool__": (True, False),
    "__len__": (1, 3),
    "__index__": (1, -(2**70)),
    "__float__": (1.0, float("nan")),
    "__int__": (1, 10**400),
    "__repr__": ("a", "b"),
    "__name__": ("a", 7),
    "__iter__": (iter((1,)), iter(())),
    "__reduce_ex__": ((_five, ()), "no such thing"),
}
_WRONG: dict[str, Any] = {
    "__hash__": "one",
    "__eq__": Thing(),
    "__repr__": 7,
    "__str__": None,
    "__bool__": "yes",
    "__len__": -1,
    "__iter__": 7,
    "__index__": 1.5,
    "__float__": "1.0",
    "__name__": 7,
    "__module__": None,
    "__class__": 7,
    "__reduce_ex__": 7,
    "__getstate__": 7,
    "__getattr__": 7,
    "__call__": NotImplemented,
    "__dict__": 7,
    "__await__": 7,
}
_RECURSIVE = ("__call__", "__hash__", "__eq__", "__repr__", "__str__", "__getattr__", "__reduce_ex__")
_RECURSIVE = (*_RECURSIVE, "__getattribute__")
_BLOCKING = ("__call__", "__hash__", "__eq__", "__repr__", "__str__", "__bool__", "__len__", "__iter__")
_BLOCKING = (*_BLOCKING, "__reduce_ex__", "__del__", "__getattr__", "__index__", "__name__")
_CALLING = (*_BLOCKING, "__getstate__", "__float__", "__lt__", "__neg__", "__module__", "__class__")


def _no_such(name: str) -> NoReturn:
    raise AttributeError(name)


def _raise(method: str) -> Callable[..., Any]:
    def raise_it(_self: Any, *_: Any, **__: Any) -> NoReturn:
        raise ZooError(method)

    return raise_it


def _recurse(method: str) -> Callable[..., Any]:
    def recurse(self: Any, *args: Any, **keywords: Any) -> Any:
        return recurse(self, *args, **keywords)

    return recurse


def _after(action: Callable[[], object]) -> Callable[[str], Callable[..., Any]]:
    def behave(method: str) -> Callable[..., Any]:
        ordinary = _ORDINARY.get(method, lambda _: "a")

        def act(self: Any, *args: Any, **keywords: Any) -> Any:
            action()
            return ordinary(self, *args, **keywords)

        return act

    return behave


def _change(method: str) -> Callable[..., Any]:
    answers = itertools.cycle(_CHANGES[method])
    return lambda *_, **__: next(answers)


def _return_wrong(method: str) -> Callable[..., Any]:
    return lambda *_, **__: _WRONG[method]


def _block() -> None:
    time.sleep(BLOCKED)


# ---- by name

OBJECTS: dict[str, Callable[[], Any]] = {}
NUMBERS: dict[str, Callable[[], Any]] = {}
ERRORS: dict[str, Callable[[], Any]] = {}
CLOSING: dict[str, Callable[[], Any]] = {}  # these close their Director, and want one of their own


def make(name: str) -> Any:
    """A new object of this name."""
    for kind in (OBJECTS, NUMBERS, ERRORS, CLOSING):
        if name in kind:
            return kind[name]()
    raise LookupError(name)


def _define(verb: str, method: str, act: Callable[..., Any], base: type = Thing, kind: Any = OBJECTS) -> None:
    """A class one of whose methods, or properties, does this; by a name of this module, so that it can be pickled."""
    name = f"{method.strip('_')} {verb}" + ("" if base is Thing else f" of {base.__name__}")
    is_value = method in _PROPERTIES or method in _ATTRIBUTES
    body = {"__module__": __name__, method: property(act) if is_value else act}
    if method == "__eq__":
        body["__hash__"] = base.__hash__  # or it could not be a key at all
    cls = type(name.replace(" ", "_"), (base,), body)
    setattr(sys.modules[__name__], name.replace(" ", "_"), cls)
    kind[name] = cls if base is Thing else functools.partial(cls, "1" if base is str else 1)


for _method in (*_ORDINARY, *_PROPERTIES, *_ATTRIBUTES):
    _define("raises", _method, _raise(_method))
for _method in _RECURSIVE:
    _define("recurses", _method, _recurse(_method))
for _method in _BLOCKING:
    _define("blocks", _method, _after(_block)(_method))
for _method in _CALLING:
    _define("calls back", _method, _after(call_back)(_method))
for _method in ("__call__", "__hash__", "__eq__", "__repr__", "__reduce_ex__", "__del__"):
    _define("closes", _method, _after(close_director)(_method), kind=CLOSING)
for _method in _CHANGES:
    _define("changes", _method, _change(_method))
for _method in _WRONG:
    _define("is wrong", _method, _return_wrong(_method))
for _method in ("__hash__", "__eq__", "__neg__", "__add__", "__lt__", "__index__", "__repr__", "__float__", "__int__"):
    for _base in (int, float):
        _define("raises", _method, _raise(_method), _base, NUMBERS)
for _method in ("__hash__", "__eq__", "__str__", "__len__", "__format__", "__lt__", "__reduce_ex__"):
    _define("raises", _method, _raise(_method), str)


# ---- proxies, and what looks like something else


class Forwards:
    """Every attribute that it lacks is itself, as with `xmlrpc.client.ServerProxy`."""

    def __call__(self, *_: Any, **__: Any) -> int:
        return 5

    def __getattr__(self, name: str) -> Any:
        return self


class Lies(Thing):
    """Says that it is a `str`."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return str


class Meta(type):
    """Of a class that can't be compared, hashed or shown."""

    def __repr__(cls) -> NoReturn:
        raise ZooError("repr of a class")

    def __hash__(cls) -> NoReturn:
        raise ZooError("hash of a class")

    def __eq__(cls, other: object) -> NoReturn:
        raise ZooError("eq of a class")

    def __instancecheck__(cls, instance: object) -> NoReturn:
        raise ZooError("instancecheck")

    def __subclasscheck__(cls, subclass: type) -> NoReturn:
        raise ZooError("subclasscheck")

    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        raise ZooError("name of a class")


class OfMeta(metaclass=Meta):
    """See `Meta`."""

    def __call__(self, *_: Any) -> int:
        return 5


class Unpicklable(Thing):
    """Holds a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Explodes(Thing):
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return _explode, ()


class ExitsOnArrival(Thing):
    """Ends the process that unpickles it, if that obeys a `SystemExit`."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def _explode() -> NoReturn:
    raise ZooError("unpickled")


def _weak() -> Any:
    thing = Thing()
    return weakref.proxy(thing)  # whose object is gone at once


def _nested() -> Any:
    outer: list[Any] = []
    for _ in range(DEEP):
        outer = [outer]
    return outer


def _cyclic() -> Any:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def _generator() -> Any:
    yield 1


def _failing_iterator() -> Any:
    yield 1
    raise ZooError("next")


class _Color(enum.Enum):
    RED = 1


class _Level(enum.IntEnum):
    LOW = 1


class _Word(enum.StrEnum):
    WORD = "word"


class Triple(tuple):  # type: ignore[type-arg]
    """A tuple that can't be hashed."""

    __slots__ = ()

    def __hash__(self) -> NoReturn:
        raise ZooError("hash of a tuple")


class Keys(dict):  # type: ignore[type-arg]
    """A mapping that can't be walked."""

    def keys(self) -> NoReturn:
        raise ZooError("keys")

    def items(self) -> NoReturn:
        raise ZooError("items")

    def __iter__(self) -> NoReturn:
        raise ZooError("iter")


def _wrapped_in_itself() -> Any:
    def fn(*_: Any) -> int:
        return 5

    fn.__wrapped__ = fn  # type: ignore[attr-defined]
    return fn


OBJECTS |= {
    "a mock": lambda: Mock(return_value=5),
    "a magic mock": lambda: MagicMock(return_value=5),
    "forwards": Forwards,
    "a lie": Lies,
    "of a metaclass": OfMeta,
    "a class of a metaclass": lambda: OfMeta,
    "a dead weak proxy": _weak,
    "unpicklable": Unpicklable,
    "explodes": Explodes,
    "exits on arrival": ExitsOnArrival,
    "nested": _nested,
    "cyclic": _cyclic,
    "a generator": _generator,
    "a failing iterator": _failing_iterator,
    "an endless iterator": lambda: itertools.count(),
    "a lambda": lambda: lambda *_: 5,
    "a partial": lambda: functools.partial(functools.partial(_five)),
    "wrapped in itself": _wrapped_in_itself,
    "a builtin": lambda: print,
    "a class": lambda: Thing,
    "a module": lambda: types,
    "a lock": lambda: threading.Lock(),
    "a local": lambda: threading.local(),
    "a memory": lambda: memoryview(bytearray(9)),
    "a huge text": lambda: "x" * HUGE,
    "a surrogate": lambda: "\ud800",
    "controls": lambda: "\x1b[2J\x00\x9b\u202e",
    "a tuple": lambda: Triple((1, 2)),
    "a mapping": lambda: Keys(a=1),
    "an enum": lambda: _Color.RED,
    "a word": lambda: _Word.WORD,
    "nothing": lambda: None,
    "not implemented": lambda: NotImplemented,
    "a list": lambda: [1, 2],
}

# ---- numbers

NUMBERS |= {
    "zero": lambda: 0,
    "minus one": lambda: -1,
    "true": lambda: True,
    "int64 most": lambda: 2**63 - 1,
    "int64 too much": lambda: 2**63,
    "int64 least": lambda: -(2**63),
    "int64 too little": lambda: -(2**63) - 1,
    "uint64 too much": lambda: 2**64,
    "giant": lambda: 10**400,
    "minus giant": lambda: -(10**400),
    "beyond text": lambda: 10**5000,  # more digits than int() may turn into text
    "nan": lambda: float("nan"),
    "infinite": lambda: float("inf"),
    "minus infinite": lambda: float("-inf"),
    "least float": lambda: 5e-324,
    "most float": lambda: 1.7976931348623157e308,
    "minus nought": lambda: -0.0,
    "half": lambda: 0.5,
    "complex": lambda: 1j,
    "decimal": lambda: Decimal(1),
    "decimal nan": lambda: Decimal("sNaN"),
    "fraction": lambda: Fraction(1, 3),
    "level": lambda: _Level.LOW,
    "digits": lambda: "1",
}
with contextlib.suppress(ImportError):
    import numpy as np

    NUMBERS |= {
        "numpy int": lambda: np.int64(1),
        "numpy uint": lambda: np.uint64(2**64 - 1),
        "numpy float": lambda: np.float64(1.0),
        "numpy half": lambda: np.float16(1.0),
        "numpy nan": lambda: np.float64("nan"),
        "numpy bool": lambda: np.True_,
        "numpy scalar array": lambda: np.array(1),
    }
    OBJECTS |= {
        "numpy array": lambda: np.arange(3),
        "numpy objects": lambda: np.array([Thing(), None], dtype=object),
        "numpy large": lambda: np.zeros(300_000),
    }


# ---- exceptions


@dataclass(frozen=True)
class Frozen(Exception):
    """Its attributes can't be set, `__traceback__` neither."""

    code: int = 1


class Immovable(Exception):
    """Takes no attribute at all."""

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ZooError(f"setattr {name}")


class TwoArguments(Exception):
    """Can't be made again from its `args`."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Unhashable(Exception):
    """Can't be a key."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> NoReturn:
        raise ZooError("eq")


class Holds(Exception):
    """Holds what can't be pickled."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Locked(Exception):
    """Has what can't be pickled among its arguments."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


class Falsy(Exception):
    """Is false."""

    def __bool__(self) -> bool:
        return False


class NotTrue(Exception):
    """Is neither true nor false."""

    def __bool__(self) -> NoReturn:
        raise ZooError("bool")


class NoText(Exception):
    """Can't be shown."""

    def __str__(self) -> NoReturn:
        raise ZooError("str")

    __repr__ = __str__


class WrongText(Exception):
    """Is shown as something that is no text."""

    def __str__(self) -> Any:
        return 7

    __repr__ = __str__


class SlowText(Exception):
    """Takes its time to be shown."""

    def __str__(self) -> str:
        _block()
        return "slow"

    __repr__ = __str__


class CallingText(Exception):
    """Calls the Director when it is shown."""

    def __str__(self) -> str:
        call_back()
        return "called"

    __repr__ = __str__


class ExitingText(Exception):
    """Raises what ends a program when it is shown."""

    def __str__(self) -> NoReturn:
        raise SystemExit(3)

    __repr__ = __str__


class NoClass(Exception):
    """Does not say what it is."""

    @property
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise ZooError("class")


class NoModule(Exception):
    """Of no module."""


NoModule.__module__ = None  # type: ignore[assignment]


class NoCause(Exception):
    """Its cause can't be read."""

    @property
    def __cause__(self) -> NoReturn:  # type: ignore[override]
        raise LookupError("no such cause")


class NoTraceback(Exception):
    """Its traceback can be neither read nor set."""

    @property
    def __traceback__(self) -> NoReturn:  # type: ignore[override]
        raise ZooError("traceback")

    def with_traceback(self, _: Any) -> NoReturn:
        raise ZooError("with_traceback")


class NoNotes(Exception):
    """Takes no notes."""

    def add_note(self, _: str) -> NoReturn:
        raise ZooError("add_note")

    @property
    def __notes__(self) -> NoReturn:
        raise ZooError("notes")


class NoArguments(Exception):
    """Its arguments can't be read."""

    @property
    def args(self) -> NoReturn:  # type: ignore[override]
        raise ZooError("args")


class NoAttributes(Exception):
    """Nothing of it can be read."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise ZooError(name)


class NoPickle(Exception):
    """Can't be pickled."""

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise ZooError("reduce")


class ExitingPickle(Exception):
    """Raises what ends a program when it is pickled."""

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise SystemExit(3)


class Exploding(Exception):
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return _explode, ()


class BecomesText(Exception):
    """Is no exception any more when it is unpickled."""

    def __reduce__(self) -> Any:
        return str, ("text",)


class Alone(BaseException):
    """Not caught by `except Exception`."""


class TimesOut(TimeoutError):
    """The user's own."""


def _raised(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def _with_cyclic_cause() -> BaseException:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    one.__context__, two.__context__ = two, one
    return one


def _with_long_chain() -> BaseException:
    return functools.reduce(lambda cause, n: _raised(ValueError(n), cause), range(3000), ValueError("first"))


def _with_bad_notes() -> BaseException:
    error = ValueError("notes")
    error.__notes__ = 7  # type: ignore[assignment]
    return error


def _nested_groups() -> BaseException:
    return functools.reduce(lambda inner, n: ExceptionGroup(f"{n}", [inner]), range(500), ValueError("innermost"))


ERRORS |= {
    "an ordinary error": lambda: ValueError("ordinary"),
    "frozen": Frozen,
    "immovable": Immovable,
    "two arguments": lambda: TwoArguments(1, 2),
    "unhashable": Unhashable,
    "holds a lock": Holds,
    "a lock among arguments": Locked,
    "falsy": Falsy,
    "neither true nor false": NotTrue,
    "no text": NoText,
    "wrong text": WrongText,
    "slow text": SlowText,
    "calling text": CallingText,
    "exiting text": ExitingText,
    "no class": NoClass,
    "no module": NoModule,
    "no cause": NoCause,
    "no traceback": NoTraceback,
    "no notes": NoNotes,
    "no arguments": NoArguments,
    "no attributes": NoAttributes,
    "no pickle": NoPickle,
    "exiting pickle": ExitingPickle,
    "exploding": Exploding,
    "becomes text": BecomesText,
    "alone": Alone,
    "times out": TimesOut,
    "cyclic cause": _with_cyclic_cause,
    "long chain": _with_long_chain,
    "bad notes": _with_bad_notes,
    "group": lambda: ExceptionGroup("group", [ValueError(1), NoText()]),
    "nested groups": _nested_groups,
    "base group": lambda: BaseExceptionGroup("group", [Alone(), SystemExit(3)]),
    "huge": lambda: ValueError("x" * HUGE),
    "control text": lambda: ValueError("\x1b[2J\x9b\u202e\ud800"),
    "stop iteration": lambda: StopIteration(7),
    "stop async iteration": lambda: StopAsyncIteration(),
    "system exit": lambda: SystemExit(3),
    "system exit of a thing": lambda: SystemExit(Thing()),
    "keyboard interrupt": KeyboardInterrupt,
    "generator exit": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "future cancelled": FutureCancelled,
    "timeout": asyncio.TimeoutError,
    "invalid state": asyncio.InvalidStateError,
    "memory": MemoryError,
    "recursion": RecursionError,
    "an assertion": AssertionError,
    "broken pipe": BrokenPipeError,
    "end of file": EOFError,
    "a user's worker died": lambda: director.WorkerDied(9, simulated_devices(1)[0]),
    "a user's queue full": lambda: director.QueueFull(1, 1, None),
    "a user's director closed": lambda: director.DirectorClosed("closed"),
    "a user's job timeout": lambda: director.JobTimeout("running"),
    "a user's placement error": lambda: director.PlacementError("mine"),
}
