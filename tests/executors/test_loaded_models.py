"""The models that another process has: each change is reported, and a lost process loses each model once."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock, call

import pytest

from director import Device, Model
from director._executors.remote.loaded_models import LoadedModels
from director._jobs.job_runner import SlotInfo

SLOT = SlotInfo(0, Device(0, "CPU-0", "a CPU", "cpu"))


@pytest.fixture
def events() -> Mock:
    """Takes the reports; memory is not accounted for."""
    return Mock(is_accounted=Mock(return_value=False))


@pytest.fixture
def models(events: Mock) -> LoadedModels:
    """The record of a slot."""
    return LoadedModels(SLOT, events)


def model(name: str) -> Model[Any]:
    """A model of nothing."""
    return Model(lambda _device: name, name=name)


def load(models: LoadedModels, one: Model[Any]) -> int:
    """Its number, after the model was loaded."""
    number = models.number(one)
    models.note_loading(one)
    models.note_loaded(number, 0.5, None)
    return number


def lost(events: Mock) -> list[str]:
    """Names of the models whose unload was reported."""
    return sorted(reported.args[0].name for reported in events.unloaded.mock_calls)


def test_a_model_is_found_whether_it_is_loaded_or_asleep(models: LoadedModels, events: Mock) -> None:
    one = model("one")
    number = load(models, one)
    assert (models.has(one), models.find(one)) == (True, number)
    assert models.note_asleep(number)
    assert (models.has(one), models.find(one)) == (False, number)
    removed = models.remove(number)
    assert removed is not None
    assert removed.name == "one"
    assert models.find(one) is None
    assert events.loaded.mock_calls == [call(removed, SLOT, 0.5)]


def test_a_lost_process_loses_what_is_loaded_asleep_and_being_loaded(models: LoadedModels, events: Mock) -> None:
    load(models, model("loaded"))
    models.note_asleep(load(models, model("asleep")))
    models.note_loading(model("being loaded"))
    models.lose()
    assert lost(events) == ["asleep", "being loaded", "loaded"]
    models.lose()
    assert len(lost(events)) == 3


def test_a_model_that_is_lost_while_it_wakes_is_lost_once(models: LoadedModels, events: Mock) -> None:
    one = model("one")
    models.note_asleep(load(models, one))
    models.note_loading(one)
    models.lose()
    assert lost(events) == ["one"]


def test_a_model_that_was_lost_is_neither_removed_nor_asleep(models: LoadedModels) -> None:
    number = load(models, model("one"))
    models.lose()
    assert models.remove(number) is None
    assert not models.note_asleep(number)
