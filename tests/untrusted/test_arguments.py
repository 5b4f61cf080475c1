"""Arguments become our own, or are refused by their name; none of their code is trusted."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from director._untrusted.arguments import check_blocking, check_callable, choice, file_name, text, truth


class Odd(str):
    """A text whose methods raise."""

    __slots__ = ()

    def __eq__(self, _other: object) -> NoReturn:
        raise SystemExit(9)

    __hash__ = __str__ = __repr__ = __eq__  # type: ignore[assignment]


def test_a_text_of_a_class_of_its_own_is_taken_as_a_plain_one() -> None:
    assert type(text("name", Odd("x"))) is str
    assert type(file_name("server", Odd("x"))) is str
    assert type(choice("require", Odd("all"), ("all", "any"))) is str


@pytest.mark.parametrize("value", [None, 3, b"all", ["all"], "", "ALL", Odd("many")])
def test_another_word_is_refused_with_those_there_are(value: object) -> None:
    with pytest.raises(ValueError, match="require must be 'all' or 'any', not "):
        choice("require", value, ("all", "any"))


def test_none_may_be_one_of_the_words() -> None:
    assert choice("when_full", None, ("wait", "refuse", None)) is None
    with pytest.raises(ValueError, match="when_full must be 'wait', 'refuse' or None, not 0"):
        choice("when_full", 0, ("wait", "refuse", None))


@pytest.mark.parametrize(
    ("value", "error"), [("a/b", ValueError), ("", ValueError), ("x" * 65, ValueError), (3, TypeError)]
)
def test_what_can_not_be_part_of_a_file_name_is_refused(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="shared must be"):
        file_name("shared", value)


@pytest.mark.parametrize("value", [0, 1, None, "True"])
def test_only_a_bool_is_a_bool(value: object) -> None:
    assert truth("pin", True) is True
    with pytest.raises(TypeError, match="pin must be True or False, not "):
        truth("pin", value)


def generate(_item: Any) -> Any:
    yield 1


async def wait(_item: Any) -> None:
    """Never called."""


def test_a_function_must_be_callable_and_run_when_it_is_called() -> None:
    check_blocking("batch_key", len, "a callable of one item")
    check_callable("around", generate, "a callable")
    with pytest.raises(TypeError, match="batch_key must be a callable of one item, not 3"):
        check_blocking("batch_key", 3, "a callable of one item")
    for fn, kind in ((generate, "generator"), (wait, "coroutine")):
        with pytest.raises(
            TypeError, match=f"batch_key must be a blocking function, not the {kind} function {fn.__name__}"
        ):
            check_blocking("batch_key", fn, "a callable of one item")
