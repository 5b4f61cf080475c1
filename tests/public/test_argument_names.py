"""A wrong name of an argument is refused with the one that is meant."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from director import Director, Model, SyncDirector


class Mine(Director):
    """A subclass, whose own arguments are as they were."""


def load(_device: object) -> str:
    return "replica"


@pytest.mark.parametrize(
    ("make", "wrong", "said"),
    [
        (Director, "max_que", "Director() got an unexpected keyword argument 'max_que', did you mean max_queue?"),
        (Director, "gpus", "Director() got an unexpected keyword argument 'gpus'"),
        (Mine, "slot", "Mine() got an unexpected keyword argument 'slot', did you mean slots?"),
        (SyncDirector, "hook", "Director() got an unexpected keyword argument 'hook', did you mean hooks?"),
        (Model, "warm_up", "Model() got an unexpected keyword argument 'warm_up', did you mean warmup?"),
        (Model, "quantity", "Model() got an unexpected keyword argument 'quantity'"),
    ],
)
def test_an_unknown_name_is_refused(make: Any, wrong: str, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(load if make is Model else "cpu", **{wrong: 1})
    assert str(caught.value) == said


def test_the_signatures_are_those_of_the_definitions() -> None:
    assert list(inspect.signature(Director).parameters)[:3] == ["devices", "slots", "executor"]
    assert inspect.signature(Director).parameters["max_queue"].default == 1024
    assert list(inspect.signature(Model).parameters)[:2] == ["load", "unload"]
    with pytest.raises(TypeError, match="positional argument"):
        Director("cpu", 2)  # type: ignore[misc]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'load'"):
        Model()  # type: ignore[call-arg]
