"""The only place that reads attributes of users' exceptions, callables and values. No function in here raises.

A class may define `__class__`, `__str__`, `__name__`, `__cause__` or `__setattr__` so that reading or setting raises,
blocks, or returns a value of another type. What the interpreter stores itself (the name of a class, the traceback and
the cause of an exception) is read and written through the descriptors of `type` and `BaseException`, which the class
can't override. Everything else is read once, with exceptions caught, and converted to a plain `str` of bounded length.

Any thread may call these functions; they take no lock. Texts keep their control characters; renderers escape them.
"""

from __future__ import annotations

import gc
import sys
import traceback
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from types import TracebackType

T = TypeVar("T")
LONGEST_TEXT = 10_000  # characters of a message
_LONGEST_NAME = 200
_LONGEST_STORY = 100_000  # characters of a formatted traceback
_MOST_ENTRIES = 2_000  # of a traceback: twice the interpreter's default recursion limit
_MOST_RELATED = 1_000  # exceptions that are linked by cause, context or group
_PARTIALS = 16  # nested, at most

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
_MESSAGE = BaseExceptionGroup.__dict__["message"].__get__
_FUNC = partial.__dict__["func"].__get__


class ForeignError(Exception):
    """Stands for an exception of another process, which is not rebuilt here."""

    def told(self) -> tuple[str, str, str]:
        """The class of that exception with its module, its message and its traceback."""
        raise NotImplementedError


# ---- values and their classes


def plain(text: Any) -> str | None:
    """An exact `str`, converted from a subclass (whose methods may be overridden); `None` for anything else."""
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
    """The qualified name of a class, with the classes and functions that it is nested in."""
    return (plain(_QUALNAME(kind)) or "?")[:_LONGEST_NAME]


def module_name(kind: type) -> str:
    """The module of a class, or ``""`` if it names none."""
    try:
        name = _MODULE(kind)
    except AttributeError:
        # `__module__` has been deleted.
        return ""
    return name if type(name) is str else plain(name) or ""


def full_name(kind: type) -> str:
    """The module and qualified name of a class; that of the main module has one name in all processes."""
    module = module_name(kind)
    return f"{'__main__' if module == '__mp_main__' else module}.{qualified_name(kind)}"


def ancestors(kind: type) -> tuple[type, ...]:
    """A class and its bases, in the order in which attributes are looked up."""
    return _MRO(kind)  # type: ignore[no-any-return]


def is_a(value: object, kinds: type[T] | tuple[type[T], ...]) -> TypeGuard[T]:
    """Whether the class of a value is one of `kinds` or derived from it; runs no code of the value or its class.

    `kinds` are classes of ours or of the standard library. Unlike `isinstance`, this ignores a `__class__`
    that the object defines.
    """
    return issubclass(type(value), kinds)


def is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    """The same for classes of users, which may override `__instancecheck__`, as with `isinstance`."""
    try:
        return bool(isinstance(value, kinds))
    except BaseException:  # noqa: BLE001
        mine = ancestors(type(value))
        return any(each is kind for each in mine for kind in kinds)


def attribute_of(value: object, name: str) -> Any:
    """An attribute of a value; `None` if there is none, or if reading it raises."""
    try:
        return getattr(value, name)
    except BaseException:  # noqa: BLE001
        return None


def repr_of(value: object, limit: int = LONGEST_TEXT) -> str:
    """The `repr` of a value, or its class if that raises."""
    text, raised = _shown(repr, value, limit)
    return f"<{type_name(value)} whose repr() raised {raised}>" if raised else text


def _shown(show: Callable[[object], str], value: object, limit: int) -> tuple[str, str]:
    """The text that `show` returns, and the name of the exception's class if it raises."""
    try:
        text = plain(show(value)) or ""
    except BaseException as error:  # noqa: BLE001
        return "", type_name(error)
    return text if len(text) <= limit else f"{text[: limit - 1]}…", ""


def provides(value: object, *names: str) -> bool:
    """Whether a value has these attributes by itself or by its class.

    Attributes that are created when they are read, as by a `unittest.mock.Mock`, don't count.
    """
    # Imported here because a child process does not need it otherwise.
    from inspect import getattr_static

    try:
        return all(getattr_static(value, name, names) is not names for name in names)
    except BaseException:  # noqa: BLE001
        return False


# ---- callables


def name_of(fn: Any) -> str:
    """The name of a callable: its own, for a partial that of the wrapped function, else that of its class."""
    for _ in range(_PARTIALS):
        if not is_a(fn, partial):
            break
        fn = _FUNC(fn)
    return (plain(attribute_of(fn, "__name__")) or type_name(fn))[:_LONGEST_NAME]


def wrap(wrapper: Any, fn: Any) -> None:
    """What `functools.update_wrapper` does, with those attributes of the callable that can be read."""
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
    """The message of an exception; ``""`` if its `str` raises."""
    return _shown(str, error, limit)[0]


def describe(error: BaseException, limit: int = LONGEST_TEXT) -> str:
    """The name of its class and its message."""
    text, raised = _shown(str, error, limit)
    if raised:
        text = f"its str() raised {raised}"
    return f"{type_name(error)}: {text}"


def traceback_of(error: BaseException) -> TracebackType | None:
    """The traceback that the interpreter has recorded."""
    return _TRACEBACK.__get__(error)  # type: ignore[no-any-return]


def set_traceback(error: BaseException, entries: TracebackType | None) -> None:
    """Set the traceback, also of an exception that refuses attributes.

    An instance that is raised repeatedly collects the entries of all its tracebacks; only the latest are kept.
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


def set_context(error: BaseException, context: BaseException | None) -> None:
    """What raising an exception during the handling of another one sets."""
    _CONTEXT.__set__(error, context)


def add_note(error: BaseException, note: str) -> None:
    """What `BaseException.add_note` does, once, and also for an exception that refuses attributes."""
    with suppress(BaseException):
        notes = _ATTRIBUTES(error).setdefault("__notes__", [])
        if type(notes) is list and not any(type(old) is str and old == note for old in notes):
            notes.append(note)


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group, as the group stores them; empty for any other exception."""
    return _MEMBERS(error) if is_a(error, BaseExceptionGroup) else ()


def message_of(error: BaseException) -> str:
    """The message of a group, without the count of its members; ``""`` for any other exception."""
    return plain(_MESSAGE(error)) or "" if is_a(error, BaseExceptionGroup) else ""


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
    """The formatted traceback of an exception and of its causes, as far as they can be formatted."""
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
    """Remove this package's frames from the head of a traceback, and clear them.

    They refer to the job, which will refer to the error: a reference cycle.
    """
    traceback = traceback_of(error)
    while traceback is not None and is_ours(traceback.tb_frame):
        with suppress(RuntimeError):  # the frame that is still running can't be emptied
            traceback.tb_frame.clear()
        traceback = traceback.tb_next
    set_traceback(error, traceback)


def bearable(error: BaseException) -> BaseException:
    """The error, or a `RuntimeError` in place of a `StopIteration`, which a future does not accept."""
    if not is_a(error, StopIteration):
        return error
    stopped = RuntimeError("the job raised StopIteration")
    set_cause(stopped, error)
    return stopped


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is one of this package's private modules."""
    return (plain(dict.get(frame.f_globals, "__name__")) or "").startswith("director._")


_MOST = 3  # that are named


def holders_of(value: Any) -> list[str]:
    """What refers to an object, beside the caller's own frame; at most three. Runs no code of the user's."""
    ours = (sys._getframe(0), sys._getframe(1))
    found = [each for each in gc.get_referrers(value) if each is not ours[0] and each is not ours[1]]
    words = list(dict.fromkeys(map(_words, found)))
    if not words:
        return ["something that Python's garbage collector does not see"]
    return [*words[:_MOST], "others"] if len(words) > _MOST else words


def _words(holder: Any) -> str:
    if isinstance(holder, FrameType):
        return f"a call of {holder.f_code.co_name}"
    if type(holder) is dict:
        name = holder.get("__name__")
        return f"the module {name}" if type(name) is str else "a dict"
    kind = type(holder)
    return f"a {kind.__qualname__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"
