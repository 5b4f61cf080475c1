"""One item of a batch that can't be sent or read, in either direction, fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from director import Device, Director
from director._executors.ray.actor.main import ActorMain
from director._executors.ray.encoding import CallEncoder
from director._executors.ray.messages import Answer, AnswerKind, decode_answer
from director._executors.ray.payload import unpack
from director._executors.ray.pending_call import RayCall
from director._executors.remote.batch_items import unpack_items
from director._executors.remote.loaded_models import LoadedModels
from director._ipc.protocol import CallStyle
from executors.process.test_batches import ODD, give, outcomes, take, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


async def test_an_argument_fails_alone_and_runs_nothing(single: Director) -> None:
    for place, name in enumerate(["unreadable", "unsendable", "exit", "exit there"]):
        items: list[Any] = [1, 2, 3, 4, 5]
        items[place] = ODD[name]()
        found = await outcomes(single, take, items)
        assert isinstance(found.pop(place), BaseException)
        assert found == ["int"] * 4
    assert sum(await single.run(told)) == 16


async def test_a_reference_that_stands_for_an_error_fails_alone(single: Director) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def broken() -> None:
        raise LookupError("of one item")

    found = await outcomes(single, take, [1, broken.remote(), ray.put("x")])
    assert isinstance(found.pop(1), LookupError)
    assert found == ["int", "str"]


async def test_a_result_fails_alone_and_its_batch_is_not_run_again(single: Director) -> None:
    for name in ODD:
        found = await outcomes(single, give, ["a", "b", name, "c"])
        assert isinstance(found.pop(2), Exception)
        assert found == [["a"], ["b"], ["c"]]
    assert await single.run(told) == [4] * len(ODD)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ActorMain]:
    """The inside of an actor, in this process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("director._executors.ray.actor.main.redirect", lambda *_: None)
    worker = ActorMain("slot", True, {}, "GPU", None)
    yield worker
    worker.shut_down()


def answered(worker: ActorMain, fn: Any, items: list[Any]) -> Answer:
    """What the worker answers to a batch."""
    device = Device(0, "CPU-0", "a CPU", "cpu")
    job = Mock(id=1, attempts=1, started_at=2.0, submitted_at=1.0, options=Mock(model=None, priority=0))
    job.name = "batch"
    call = RayCall([job] * len(items), fn, tuple(items), CallStyle.BATCH)
    message = CallEncoder(device, LoadedModels(Mock(), Mock()), lambda: 2.0).message(call, 1)
    return decode_answer(worker.call(message.content, message.extras))


def test_results_of_a_batch_travel_one_by_one(worker: ActorMain) -> None:
    names = [*ODD, "x"]
    answer = answered(worker, give, names)
    assert (answer.kind, answer.payload is None) == (AnswerKind.RETURNED, False)
    assert answer.payload is not None
    found = unpack_items(unpack(answer.payload), "batch", "cpu:0", unpack)
    assert [isinstance(each, Exception) for each in found] == [True] * len(ODD) + [False]
    assert found[-1] == ["x"]


@pytest.mark.parametrize("name", ["unreadable", "exit there"])
def test_a_batch_that_can_not_be_read_says_that_it_has_not_run(worker: ActorMain, name: str) -> None:
    assert answered(worker, take, [1, ODD[name]()]).kind == AnswerKind.NOT_READ


def test_large_results_of_a_batch_lie_beside_the_pickle(worker: ActorMain) -> None:
    import numpy as np

    payload = answered(worker, lambda _device, items: [np.zeros(item) for item in items], [1_000, 20_000]).payload
    assert payload is not None
    assert len(payload[0]) < 2_000
    assert [len(each) for each in unpack_items(unpack(payload), "batch", "cpu:0", unpack)] == [1_000, 20_000]
