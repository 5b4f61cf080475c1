"""The one place that asks users' exceptions, callables and values about themselves. Nothing in here raises.

A class may define `__class__`, `__str__`, `__name__`, `__cause__` or `__setattr__` so that asking or setting raises,
blocks, or gives a value of another type. What the interpreter keeps by itself (the name of a class, the traceback and
the cause of an exception) is read and written through the descriptors of `type` and `BaseException`, which the class
can't replace. All else is asked once, within a guard, and is made a plain `str` of bounded length.

Any thread may call these; none holds a lock. Texts keep their control characters: the renderers replace them.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

T = TypeVar("T")
LONGEST_TEXT = 10_000  # characters of what an exception says
_LONGEST_NAME = 200
_LONGEST_STORY = 100_000  # characters of a formatted traceback
_MOST_ENTRIES = 2_000  # of a traceback: twice what the interpreter's own recursion limit makes
_MOST_RELATED = 1_000  # exceptions of one family
_PARTIALS = 16  # one within the other, at most

_NAME = type.__dict__["__name__"].__get__
_QUALNAME = type.__dict__["__qualname__"].__get__
_MODULE = type.__dict__["__module__"].__get__
_MRO = type.__dict__["__mro__"].__get__
_TRACEBACK = BaseException.__dict__["__traceback__"]
_CAUSE = BaseException.__dict__["__cause__"]
_CONTEXT = BaseException.__dict__["__context__"]
_SUPPRESS = BaseException.__dict__["__suppress_context__"]
_ATTRIBUTES = BaseException.__dict__["__dict__"].__get__
_MEMBERS = BaseExceptionGroup.__dict__["exceptions"].__get__
_FUNC = partial.__dict__["func"].__get__

# ---- values and their classes


def plain(text: Any) -> str | None:
    """A `str` as one of no subclass, which may define what it does when it is shown; `None` for anything else."""
    if type(text) is str:
        return text
    return str.__str__(text) if issubclass(type(text), str) else None


def type_name(value: object) -> str:
    """The name of the class of a value."""
    return class_name(type(value))


def class_name(kind: type) -> str:
    """The name of a class."""
    return (plain(_NAME(kind)) or "?")[:_LONGEST_NAME]


def qualified_name(kind: type) -> str:
    """The name of a class with those of the classes and functions that it stands in."""
    return (plain(_QUALNAME(kind)) or "?")[:_LONGEST_NAME]


def module_name(kind: type) -> str:
    """The module of a class, or ``""`` if it names none."""
    try:
        name = _MODULE(kind)
    except AttributeError:  # it was deleted
        return ""
    return name if type(name) is str else plain(name) or ""


def ancestors(kind: type) -> tuple[type, ...]:
    """A class and its bases, in the order in which attributes are looked up."""
    return _MRO(kind)  # type: ignore[no-any-return]


def is_a(value: object, kinds: type[T] | tuple[type[T], ...]) -> TypeGuard[T]:
    """Whether the class of a value is one of `kinds` or derived from it; never asks the value or its class.

    `kinds` are classes of ours or of the standard library. Unlike with `isinstance`, an object that pretends to be
    something else by its `__class__` is what it is.
    """
    return issubclass(type(value), kinds)


def is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    """The same with classes of users, which may decide about membership by themselves, as `isinstance` lets them."""
    try:
        return bool(isinstance(value, kinds))
    except BaseException:  # noqa: BLE001
        mine = ancestors(type(value))
        return any(each is kind for each in mine for kind in kinds)


def attribute_of(value: object, name: str) -> Any:
    """An attribute of a value; `None` if there is none, or if asking for it raises."""
    try:
        return getattr(value, name)
    except BaseException:  # noqa: BLE001
        return None


def repr_of(value: object, limit: int = LONGEST_TEXT) -> str:
    """What `repr` gives, or the class of a value whose `repr` raises."""
    text, raised = _shown(repr, value, limit)
    return f"<{type_name(value)} whose repr() raised {raised}>" if raised else text


def _shown(show: Callable[[object], str], value: object, limit: int) -> tuple[str, str]:
    """A text that a value makes of itself, and the name of what that raises, if so."""
    try:
        text = plain(show(value)) or ""
    except BaseException as error:  # noqa: BLE001
        return "", type_name(error)
    return text if len(text) <= limit else f"{text[: limit - 1]}…", ""


def provides(value: object, *names: str) -> bool:
    """Whether a value has these attributes by itself or by its class.

    One that makes up attributes as they are asked for, as a `unittest.mock.Mock` does, has none of them.
    """
    from inspect import getattr_static  # not at the top: a child process has no other use for it

    try:
        return all(getattr_static(value, name, names) is not names for name in names)
    except BaseException:  # noqa: BLE001
        return False


# ---- callables


def name_of(fn: Any) -> str:
    """What people call a callable: its name, of a partial that of the function it wraps, else its class's."""
    for _ in range(_PARTIALS):
        if not is_a(fn, partial):
            break
        fn = _FUNC(fn)
    return (plain(attribute_of(fn, "__name__")) or type_name(fn))[:_LONGEST_NAME]


def wrap(wrapper: Any, fn: Any) -> None:
    """What `functools.update_wrapper` does, with as much as a callable tells of itself."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        text = plain(attribute_of(fn, name))
        if text is not None:
            setattr(wrapper, name, text)
    for name in ("__annotations__", "__type_params__"):
        if type(facts := attribute_of(fn, name)) in (dict, tuple):
            setattr(wrapper, name, facts)
    attributes = attribute_of(fn, "__dict__")
    if type(attributes) is dict:
        known = dir(wrapper)
        wrapper.__dict__.update((name, attributes[name]) for name in attributes if name not in known)
    wrapper.__wrapped__ = fn


# ---- exceptions


def text_of(error: BaseException, limit: int = LONGEST_TEXT) -> str:
    """What an exception says; ``""`` if it raises instead."""
    return _shown(str, error, limit)[0]


def describe(error: BaseException, limit: int = LONGEST_TEXT) -> str:
    """The name of its class and what it says."""
    text, raised = _shown(str, error, limit)
    if raised:
        text = f"its str() raised {raised}"
    return f"{type_name(error)}: {text}"


def traceback_of(error: BaseException) -> TracebackType | None:
    """The traceback that the interpreter has noted."""
    return _TRACEBACK.__get__(error)  # type: ignore[no-any-return]


def set_traceback(error: BaseException, entries: TracebackType | None) -> None:
    """Set the traceback, also of an exception that refuses attributes.

    A single instance that is raised again and again collects the entries of each time; only the latest are kept.
    """
    last, left = entries, _MOST_ENTRIES
    while last is not None and left:
        last, left = last.tb_next, left - 1
    if last is not None:
        last.tb_next = None
    _TRACEBACK.__set__(error, entries)


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """What ``raise error from cause`` sets."""
    _CAUSE.__set__(error, cause)


def add_note(error: BaseException, note: str) -> None:
    """What `BaseException.add_note` does, also for an exception that refuses attributes."""
    with suppress(BaseException):
        notes = _ATTRIBUTES(error).setdefault("__notes__", [])
        if type(notes) is list:
            notes.append(note)


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group, as the group keeps them; of any other exception none."""
    return _MEMBERS(error) if is_a(error, BaseExceptionGroup) else ()


def origin_of(error: BaseException) -> tuple[BaseException | None, bool]:
    """The exception that one was raised from (then True) or during the handling of (False)."""
    cause = _CAUSE.__get__(error)
    if cause is not None or _SUPPRESS.__get__(error):
        return cause, True
    return _CONTEXT.__get__(error), False


def family_of(error: BaseException) -> Iterator[BaseException]:
    """An exception, those that it was raised from or during, and the members of groups; each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < _MOST_RELATED:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += members_of(each)
        if (before := origin_of(each)[0]) is not None:
            waiting.append(before)


def story_of(error: BaseException) -> str:
    """The formatted traceback of an exception and of those before it, as far as they let themselves be shown."""
    try:
        story = "".join(traceback.format_exception(type(error), error, traceback_of(error)))
    except BaseException:  # noqa: BLE001
        story = f"{describe(error)}\n"
        with suppress(BaseException):
            story = "".join(traceback.format_tb(traceback_of(error))) + story
    return story if len(story) <= _LONGEST_STORY else "…" + story[-_LONGEST_STORY:]


def log_error(log: logging.Logger, error: BaseException, message: str, *facts: object) -> None:
    """Log at ERROR with the traceback of `error`, or its text if the handlers can't show it.

    Args:
        log: The logger.
        error: The exception.
        message: Its format; one ``%s`` for each of the facts.
        facts: Shown by `repr_of` unless they are plain strings or numbers.
    """
    shown = tuple(fact if type(fact) in (str, int, float) else repr_of(fact, _LONGEST_NAME) for fact in facts)
    try:
        log.error(message, *shown, exc_info=(type(error), error, traceback_of(error)))
    except BaseException:  # noqa: BLE001
        with suppress(BaseException):
            log.error(f"{message}\n%s", *shown, story_of(error))


def strip(error: BaseException) -> None:
    """Take our own frames off the head of a traceback, and empty them: they hold the job, which will hold the error."""
    traceback = traceback_of(error)
    while traceback is not None and _is_ours(traceback.tb_frame):
        with suppress(RuntimeError):  # the frame that is still running can't be emptied
            traceback.tb_frame.clear()
        traceback = traceback.tb_next
    set_traceback(error, traceback)


def bearable(error: BaseException) -> BaseException:
    """The error, or what a future takes for it: it would take a `StopIteration` for a generator's own end."""
    if not is_a(error, StopIteration):
        return error
    stopped = RuntimeError("the job raised StopIteration")
    set_cause(stopped, error)
    return stopped


def _is_ours(frame: FrameType) -> bool:
    return (plain(dict.get(frame.f_globals, "__name__")) or "").startswith("director._")
