"""Users' exceptions, callables and values can't make the place that asks them raise, whatever they define."""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from harness.odd import CALLABLES, EXCEPTIONS, Closed, Frozen, Refusal, Silent, refuse

from director._untrusted import objects as users

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("make", EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_an_exception_is_described_and_changed_whatever_it_defines(make: Callable[[], BaseException]) -> None:
    error, cause = make(), ValueError("the cause")
    try:
        raise error
    except BaseException as caught:
        entries = users.traceback_of(caught)
        assert entries is not None
        users.set_traceback(caught, entries.tb_next)
    assert users.traceback_of(error) is None
    users.set_cause(error, cause)
    users.add_note(error, "a note")
    assert any(each is cause for each in users.family_of(error))
    assert type(users.text_of(error)) is str
    assert type(users.story_of(error)) is str
    assert users.describe(error, 300).startswith(users.type_name(error))
    assert len(users.text_of(error)) <= users.LONGEST_TEXT
    assert type(users.module_name(type(error))) is str
    assert type(users.repr_of(error)) is str
    assert not users.is_a(error, (asyncio.TimeoutError, KeyError))
    assert users.is_a(error, BaseException)
    assert users.is_one_of(error, (type(error),))
    users.members_of(error)
    users.attribute_of(error, "code")


def test_a_note_is_shown_though_the_exception_is_frozen() -> None:
    error = Frozen()
    users.add_note(error, "seen on cpu:0")
    assert "seen on cpu:0" in "".join(traceback.format_exception(error))


def test_what_a_class_says_of_membership_counts_only_where_users_give_the_classes() -> None:
    class Any_(type):
        def __instancecheck__(cls, _: object) -> bool:
            return True

    class Everything(Exception, metaclass=Any_):
        pass

    assert users.is_one_of(ValueError(), (Everything,))
    assert not users.is_a(Mock(spec=ValueError), ValueError)
    assert isinstance(Mock(spec=ValueError), ValueError)


def test_one_instance_raised_again_and_again_keeps_a_bounded_traceback() -> None:
    error = ValueError()
    for _ in range(5_000):
        try:
            raise error
        except ValueError:
            users.set_traceback(error, users.traceback_of(error))
    assert len(traceback.extract_tb(error.__traceback__)) <= 2_001


@pytest.mark.parametrize(("fn", "name"), CALLABLES.values(), ids=CALLABLES)
def test_a_callable_has_a_plain_name(fn: Any, name: str) -> None:
    found = users.name_of(fn)
    assert type(found) is str
    assert found == name


def test_a_partial_of_too_many_partials_is_called_what_it_is() -> None:
    class Kept(functools.partial):  # type: ignore[type-arg]
        """One that isn't flattened."""

    fn: Any = refuse
    for _ in range(100):
        fn = Kept(fn)
        fn.seen = True
    assert users.name_of(fn) in ("refuse", "Kept")


class Breaks(logging.Handler):
    """Can't show tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            raise Refusal
        self.lines.append(record.getMessage())


def test_an_error_is_logged_as_text_if_the_handlers_cannot_show_it() -> None:
    log, handler = logging.getLogger("director.tests.users"), Breaks()
    log.addHandler(handler)
    log.propagate = False
    try:
        users.log_error(log, Closed(), "%s raised in %s", Silent(), 3)
    finally:
        log.removeHandler(handler)
    assert handler.lines == ["<Silent whose repr() raised Refusal> raised in 3\nClosed: its str() raised Refusal\n"]
