"""The rule of `--halt`."""

from __future__ import annotations

import argparse

import pytest

from director.cli._run.calls.rules import Halt, parse_halt


@pytest.mark.parametrize(
    ("text", "halt"),
    [
        ("never", Halt("never")),
        ("soon", Halt("soon")),
        ("now", Halt("now")),
        ("now,fail=12", Halt("now", "fail", 12)),
        ("soon,fail=2", Halt("soon", "fail", 2)),
        ("soon,success=5", Halt("soon", "success", 5)),
        ("now,done=100", Halt("now", "done", 100)),
        ("now,fail=2%", Halt("now", "fail", 2, is_percent=True)),
        ("soon,done=12.5%", Halt("soon", "done", 12.5, is_percent=True)),
        ("3", Halt("soon", "fail", 3)),
    ],
)
def test_halt(text: str, halt: Halt) -> None:
    assert parse_halt(text) == halt


@pytest.mark.parametrize("text", ["", "0", "later", "soon,fail=", "never,fail=1", "-1", "now,soon", "now,fail=-1%"])
def test_not_a_halt(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is none of: never, soon, now"):
        parse_halt(text)


@pytest.mark.parametrize("text", ["now,fail=0", "now,fail=0%", "soon,done=101%", "soon,fail=1.5"])
def test_a_halt_that_makes_no_sense(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"above 0, a percentage at most 100|is whole"):
        parse_halt(text)


def test_when_a_halt_is_reached() -> None:
    assert [Halt("soon", "fail", 2).reached(failed, 9) for failed in range(4)] == [False, False, True, True]
    assert [Halt("soon", "success", 2).reached(9, done) for done in range(4)] == [False, False, True, True]
    assert [Halt("soon", "done", 2).reached(1, done) for done in range(4)] == [False, True, True, True]
    assert not Halt("never").reached(1000, 0)


def test_a_percentage_is_one_of_all_items() -> None:
    halt = Halt("now", "fail", 10, is_percent=True)
    assert [halt.reached(failed, 0, total=50) for failed in (4, 5)] == [False, True]
    assert not halt.reached(0, 0, total=0)


def test_a_percentage_of_an_unknown_number_waits_until_it_means_something() -> None:
    halt = Halt("now", "fail", 10, is_percent=True)
    assert [halt.reached(done, 0) for done in (1, 19, 20)] == [False, False, True]
    assert not halt.reached(1, 19)
    rare = Halt("now", "fail", 1, is_percent=True)
    assert [rare.reached(2, done - 2) for done in (99, 100, 200, 201)] == [False, True, True, False]
    assert not Halt("now", "done", 50, is_percent=True).reached(1000, 0)
