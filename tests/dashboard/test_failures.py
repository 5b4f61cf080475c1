"""Failures in groups, with a few examples of each, and nothing of the errors themselves."""

from __future__ import annotations

import gc
import weakref

from dashboard.stories import DEVICES
from director.dashboard._failures import Failures


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_equal_failures_are_one_kind() -> None:
    failures = Failures()
    numbers = {failures.add("failed", "f", ValueError(str(n)), float(n), n, DEVICES[n % 2]) for n in range(10)}
    numbers |= {failures.add("failed", "g", ValueError("x"), 20.0), failures.add("failed", "f", KeyError("x"), 30.0)}
    assert len(numbers) == 3
    newest, _, oldest = failures.latest(5)
    assert (newest.error, oldest.count) == ("KeyError", 10)
    assert oldest.summary() | {"failure": 0} == {
        "failure": 0,
        "kind": "failed",
        "name": "f",
        "error": "ValueError",
        "message": "9",
        "job": 9,
        "count": 10,
        "first": 0.0,
        "last": 9.0,
        "devices": {"simulated:0": 5, "simulated:1": 5},
    }


def test_a_storm_has_few_examples() -> None:
    """A traceback costs a hundred times what the rest costs."""
    failures = Failures()
    for number in range(1000):
        failures.add("failed", "f", raised(ValueError(number)), number / 1000, number)
    (failure,) = failures.latest(1)
    assert failure.count == 1000
    assert [example["job"] for example in failure.document()["examples"]] == [500, 0]


def test_the_traceback_says_where() -> None:
    failures = Failures()
    number = failures.add("failed", "f", raised(ValueError("odd")), 1.0)
    failures.describer.wait_idle()
    failure = failures.find(number)
    assert failure is not None
    (example,) = failure.document()["examples"]
    assert "in raised\n    raise error\n" in example["traceback"]
    assert example["traceback"].endswith("ValueError: odd\n")


def test_the_longest_unseen_kind_is_forgotten() -> None:
    failures = Failures()
    first = failures.add("failed", "f0", ValueError(), 0.0)
    second = failures.add("failed", "f1", ValueError(), 1.0)
    for number in range(2, 101):
        failures.add("failed", "f0", ValueError(), 1.5)
        failures.add("failed", f"f{number}", ValueError(), float(number))
    assert failures.find(first) is not None
    assert failures.find(second) is None
    assert len(failures.latest(1000)) == 100


def test_errors_of_other_modules_are_named_in_full() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    failures = Failures()
    failures.add("failed", "f", Odd(), 0.0)
    failures.describer.wait_idle()
    (failure,) = failures.latest(1)
    assert failure.error.endswith("<locals>.Odd")
    assert failure.error.startswith("dashboard.")
    assert failure.summary()["message"] == "its str() raised RuntimeError"


def test_an_error_is_not_kept() -> None:
    class Odd(Exception):
        pass

    failures = Failures()
    error = raised(Odd())
    gone = weakref.ref(error)
    failures.add("failed", "f", error, 0.0)
    failures.describer.wait_idle()
    del error
    gc.collect()
    assert gone() is None
