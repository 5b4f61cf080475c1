"""What each slot has of a model, and where loads back off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.desk import Desk

from director import Model
from director._jobs.options import Options
from director._scheduler.memory.residency import REPLICA_MOVES, ModelOnDevice, ReplicaState, Residency
from director._scheduler.slots import DeviceSlots, make_device_slots
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

ABSENT, LOADING, RESIDENT = ReplicaState.ABSENT, ReplicaState.LOADING, ReplicaState.RESIDENT
UNLOADING, FAILED = ReplicaState.UNLOADING, ReplicaState.FAILED_UNTIL


@pytest.fixture
def places() -> list[DeviceSlots]:
    return make_device_slots(tuple(simulated_devices(2)), [2, 2])


@pytest.fixture
def model() -> Model[Any]:
    return Model(lambda device: device)


def states(residency: Residency, model: Model[Any], places: list[DeviceSlots]) -> list[ReplicaState]:
    return [residency.state(model, slot) for place in places for slot in place.slots]


def test_the_table_is_the_docstring() -> None:
    written = {state: set[ReplicaState]() for state in ReplicaState}
    for line in (ReplicaState.__doc__ or "").splitlines():
        if line.strip().startswith("| `"):
            sources, targets = line.split("|")[1:3]
            for source in sources.split(","):
                written[ReplicaState[source.strip(" `")]].add(ReplicaState[targets.strip(" `")])
    assert written == {state: set(moves) for state, moves in REPLICA_MOVES.items()}


@pytest.mark.parametrize("state", ReplicaState)
@pytest.mark.parametrize("to", ReplicaState)
def test_a_report_that_the_table_lacks_changes_nothing(
    places: list[DeviceSlots], model: Model[Any], state: ReplicaState, to: ReplicaState
) -> None:
    entry = ModelOnDevice(model, places[0])
    entry.states[0] = state
    entry.move(frozenset({0}), to)
    assert entry.states[0] is (to if to in REPLICA_MOVES[state] else state)


def test_a_shared_replica_is_that_of_all_slots(places: list[DeviceSlots], model: Model[Any]) -> None:
    residency = Residency(places)
    slot = places[0].slots[1]
    steps: list[tuple[Callable[..., Any], ReplicaState]] = [
        (residency.begin, LOADING),
        (residency.add, RESIDENT),
        (residency.begin_removal, UNLOADING),
        (residency.remove, ABSENT),
    ]
    for report, state in steps:
        report(model, slot)
        assert states(residency, model, places) == [state, state, ABSENT, ABSENT]
        assert residency.resident(model) == (frozenset({0, 1}) if state is RESIDENT else frozenset())


def test_a_failed_load_is_that_of_the_device(places: list[DeviceSlots], model: Model[Any]) -> None:
    """A slot of it that has the model, or is at it, keeps it."""
    residency = Residency(places)
    residency.is_per_slot = True
    first, second = places[0].slots
    residency.begin(model, first)
    assert residency.fail(model, first, 10.0) == (1.0, 11.0)
    assert states(residency, model, places) == [FAILED, FAILED, ABSENT, ABSENT]
    assert residency.failed(model) == {0, 1}
    residency.begin(model, second)
    residency.begin(model, first)
    assert residency.fail(model, first, 20.0) == (2.0, 22.0)
    assert states(residency, model, places) == [FAILED, LOADING, ABSENT, ABSENT]
    residency.end_backoff(model, places[0], 11.0)
    assert residency.failed(model) == {0}, "a later load has failed"
    residency.end_backoff(model, places[0], 22.0)
    assert residency.failed(model) == frozenset()


def test_a_success_ends_the_back_off_of_the_device(places: list[DeviceSlots], model: Model[Any]) -> None:
    residency = Residency(places)
    residency.is_per_slot = True
    first, second = places[0].slots
    for _ in range(3):
        residency.fail(model, first, 0.0)
    residency.add(model, second)
    assert states(residency, model, places)[:2] == [ABSENT, RESIDENT]
    assert residency.fail(model, first, 0.0)[0] == 1.0


def test_a_load_that_was_lost_was_never_loaded(places: list[DeviceSlots], model: Model[Any]) -> None:
    residency = Residency(places)
    residency.begin(model, places[0].slots[0])
    assert not residency.remove(model, places[0].slots[0])
    residency.add(model, places[0].slots[0])
    assert residency.remove(model, places[0].slots[0])


def test_a_worker_is_started_where_the_load_has_not_failed() -> None:
    for broken in (0, 1):
        desk = Desk([1, 1])
        model: Model[Any] = Model(lambda device: device)
        desk.broken[model] = frozenset({broken})
        job = desk.admit(Options(model))
        desk.settle()
        assert desk.slots[1 - broken].job is job


def test_a_parked_worker_is_woken_where_the_load_has_not_failed() -> None:
    for broken in (0, 1):
        desk = Desk([1, 1])
        for _ in range(2):
            desk.admit()
        desk.settle()
        for slot in desk.slots:
            assert desk.take(slot) is None
        model: Model[Any] = Model(lambda device: device)
        desk.broken[model] = frozenset({broken})
        job = desk.admit(Options(model))
        desk.settle()
        assert desk.slots[1 - broken].job is job
