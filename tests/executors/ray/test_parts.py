"""The parts that need no cluster: what a user says, what nodes are called, and how calls and notes travel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from director import Device, Director, NoDevices, WorkerDied, share
from director._executors.ray.actor.call_queue import KEPT, CallQueue, LastBegun, ReceivedCall
from director._executors.ray.actor.side_channel import WINDOW, SideChannel
from director._executors.ray.actor_client import is_loss
from director._executors.ray.cluster.connection import _connect_error
from director._executors.ray.cluster.nodes import Node, NodeNames, bundle_of
from director._executors.ray.cluster.reservation import Reservation
from director._executors.ray.messages import (
    WITHDRAW,
    Answer,
    AnswerKind,
    Hardware,
    SideMessage,
    SideMessageKind,
    decode_answer,
    decode_messages,
    encode_answer,
    encode_messages,
)
from director._executors.ray.payload import pack, runs_no_code, unpack
from director._ipc.protocol import Notice
from director.errors import DiscoveryError
from director.ray import RayExecutor

if TYPE_CHECKING:
    from pathlib import Path

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"address": 5}, TypeError, "address must be a str"),
    ({"address": "ray://head:10001"}, ValueError, "Ray Client"),
    ({"address": "http://head:8265"}, ValueError, "as host:6379"),
    ({"address": ""}, ValueError, "as host:6379"),
    ({"resources": ["GPU"]}, TypeError, "resources must be a mapping"),
    ({"resources": {}}, ValueError, "resources is empty"),
    ({"resources": {"GPU": 0}}, ValueError, "from 0.0001 to"),
    ({"resources": {"GPU": 1.5}}, ValueError, "whole GPUs"),
    ({"resources": {"GPU": -1}}, ValueError, "from 0.0001 to"),
    ({"resources": {"GPU": "1"}}, TypeError, "must be a number"),
    ({"runtime_env": 3}, TypeError, "runtime_env must be a mapping"),
    ({"start_timeout": float("inf")}, ValueError, "start_timeout must .* at most"),
    ({"grace": True}, TypeError, "grace must be seconds as a number"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG)
def test_what_a_user_can_not_say(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        RayExecutor(**arguments)


def test_a_cluster_that_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "set RAY_AUTH_MODE=token" in _connect_error("10.0.0.1:6379", error, True)
    assert "ray start --head" in _connect_error("10.0.0.1:6379", error, False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "ray start --head" in _connect_error("10.0.0.1:6379", error, True)


def test_without_a_cluster_what_is_shared_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    value = [1, 2]
    assert share(value) is value


def test_slots_of_a_cluster_are_not_shared_by_name() -> None:
    with pytest.raises(ValueError, match="processes of one machine"):
        Director(executor=RayExecutor(), shared="here")


def test_what_devices_mean() -> None:
    bare, full = Node("1", "a", {"CPU": 4.0}), Node("2", "b", {"CPU": 8.0, "GPU": 2.0})
    assert bundle_of(None, None, [bare, full])[0] == {"GPU": 1.0}
    assert bundle_of("gpu", None, [full])[0] == {"GPU": 1.0}
    assert bundle_of("cpu", None, [full]) == ({"CPU": 1.0}, 1)
    assert bundle_of("cpu:3", None, [full]) == ({"CPU": 1.0}, 3)
    assert bundle_of(None, {"GPU": 2}, [full])[0] == {"GPU": 2}
    with pytest.raises(NoDevices, match="No node of the Ray cluster has a GPU"):
        bundle_of("gpu", None, [bare])
    for spec, resources in (("cuda:1", None), ([0], None), ("simulated:2", None), ("cpu", {"CPU": 1})):
        with pytest.raises(ValueError, match="devices="):
            bundle_of(spec, resources, [full])  # type: ignore[arg-type]


def test_a_cluster_without_gpus_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert bundle_of(None, None, [Node("1", "a", {"CPU": 4.0})]) == ({"CPU": 1.0}, 1)
    assert "No node of the Ray cluster has a GPU" in caplog.text


def test_how_many_devices_a_node_holds() -> None:
    node = Node("1", "a", {"CPU": 8.0, "GPU": 3.0})
    assert [node.holds(bundle) for bundle in ({"GPU": 1}, {"GPU": 0.5}, {"GPU": 2}, {"TPU": 1})] == [3, 6, 1, 0]
    assert node.holds({"GPU": 1, "CPU": 4}) == 2
    assert node.holds({"GPU": 0.1}) == 30  # not 29, as floats would have it


def listed(number: int, **facts: Any) -> dict[str, Any]:
    plain = {"Alive": True, "NodeName": "10.0.0.1", "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "gpu-a"}
    return {"NodeID": f"{number:08}", "Resources": {}, **plain, **facts}


def test_nodes_keep_names_of_their_own() -> None:
    names = NodeNames()
    first = names.alive([listed(1), listed(2, NodeName="blue"), listed(3), listed(4, Alive=False)])
    assert [node.name for node in first] == ["gpu-a", "blue", "gpu-a-000000"]
    assert [node.name for node in names.alive([listed(3), listed(1)])] == ["gpu-a-000000", "gpu-a"]


class Reserved(Reservation):
    """A reservation without a cluster."""

    def start_actor(self, previous: Any = None) -> Any:
        return Mock()


def reserved(ordinal: int, **bundle: float) -> Reservation:
    return Reserved(Node("n" * 20, "a", {}), ordinal, bundle, RayExecutor(start_timeout=1.0), Mock())


def test_a_device_is_what_its_first_actor_has() -> None:
    gpu = Device(0, "GPU-1", "H100", "cuda", 80)
    assert reserved(0, GPU=1).identify(Hardware(("3",), (gpu,)), set()) == Device(3, "GPU-1", "H100", "cuda", 80, "a")
    logical = reserved(0, GPU=1).identify(Hardware(("1",), ()), set())
    assert (logical.label, logical.uuid) == ("cpu:1@a", f"RAY-{'n' * 16}-1")
    assert reserved(5, solo=1).identify(Hardware((), ()), set()).index == 5
    assert reserved(1, GPU=0.5).identify(Hardware(("3",), (gpu,)), {"GPU-1"}).uuid == "GPU-1#1"
    with pytest.raises(DiscoveryError, match="to two actors"):
        reserved(1, GPU=1).identify(Hardware(("3",), (gpu,)), {"GPU-1"})
    with pytest.raises(DiscoveryError, match="NOSET_CUDA_VISIBLE_DEVICES"):
        reserved(1, GPU=1).identify(Hardware(("1",), (gpu, replace(gpu, uuid="GPU-2"))), set())


def test_the_label_names_the_node() -> None:
    device = Device(1, "GPU-1", "H100", "cuda", node="gpu-a")
    assert device.label == "cuda:1@gpu-a"
    assert str(WorkerDied(None, device)) == "The actor on cuda:1@gpu-a, or its node, was lost in the midst of a job."


class Begun:
    """Stands for the file of an actor."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def write(self, number: int) -> None:
        self.numbers.append(number)


def received(number: int) -> ReceivedCall:
    return ReceivedCall(number, None)


def made(queue: CallQueue) -> int:
    call = queue.next()
    assert call is not None
    return call.number


def another_actor(folder: Path, program: str) -> subprocess.Popen[str]:
    """A process that has said that it is there."""
    program = "import time; from director._executors.ray.actor.call_queue import LastBegun;" + program
    program += "; print('here', flush=True); time.sleep(60)"
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "here"
    return process


def test_an_actor_learns_what_had_begun_when_the_one_before_it_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = another_actor(tmp_path, "b = LastBegun('slot', is_first=True); [b.write(n + 1) for n in range(10)]")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(LastBegun("slot", is_first=False).read()))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()  # it waits for the end of that process
    before.kill()
    before.communicate()
    thread.join(10)
    assert sorted(found) == list(range(3, 11))
    assert len(found) == KEPT


def test_an_actor_begins_nothing_once_another_has_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = LastBegun("slot", is_first=True)
    assert first.read() == ()
    assert not list(tmp_path.iterdir())
    later = another_actor(tmp_path, "b = LastBegun('slot', is_first=False)")
    try:
        with pytest.raises(BlockingIOError):
            first.write(1)
    finally:
        later.kill()
        later.communicate()
    assert first.read() == ()


def test_a_call_is_withdrawn_or_begun_and_both_once() -> None:
    begun = Begun()
    queue = CallQueue(begun, lambda: None)  # type: ignore[arg-type]
    first, second, third = received(1), received(2), received(3)
    for call in (first, second, third):
        queue.put(call)
    assert made(queue) == 1
    queue.request(1, WITHDRAW)  # too late
    queue.request(2, WITHDRAW)
    assert second.wait() == Answer(2, AnswerKind.WITHDRAWN)
    queue.request(2, WITHDRAW)
    queue.request(4, WITHDRAW)  # before it has come
    early, again = received(4), received(1)
    queue.put(early)
    queue.put(again)  # Ray has sent it twice
    assert [call.wait().kind for call in (early, again)] == [AnswerKind.WITHDRAWN] * 2
    assert made(queue) == 3
    assert begun.numbers == [1, 3]
    queue.close()
    assert queue.next() is None


def test_a_notice_is_for_the_call_that_it_names() -> None:
    said: list[int] = []
    queue = CallQueue(Begun(), lambda: said.append(1))  # type: ignore[arg-type]
    queue.put(received(1))
    assert made(queue) == 1
    queue.request(1, Notice.CANCELLED)
    assert (queue.look(1), queue.look(2), said) == (Notice.CANCELLED, Notice.NONE, [1])
    waiting = received(2)
    queue.put(waiting)
    queue.request(2, Notice.CANCELLED)  # has not begun, and never will
    assert waiting.wait().kind == AnswerKind.WITHDRAWN
    queue.put(received(3))
    assert made(queue) == 3
    queue.request(1, Notice.TIME_IS_UP)  # late
    assert (queue.look(1), queue.look(3)) == (Notice.NONE, Notice.NONE)


def message(number: int, kind: SideMessageKind = SideMessageKind.REPORTED) -> SideMessage:
    return SideMessage(number, kind, number, pack(number))


def test_messages_come_in_order_and_wake_who_waits() -> None:
    channel = SideChannel()
    heard: list[SideMessage] = []
    thread = threading.Thread(target=lambda: heard.extend(channel.take()))
    thread.start()
    channel.add(message(1))
    thread.join(5)
    channel.add(message(2))
    channel.add(message(3))
    assert [each.number for each in heard + channel.take()] == [1, 2, 3]
    channel.close()
    assert channel.take() == []


def test_too_many_messages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director._executors.ray.actor.side_channel._MOST", 2)
    channel = SideChannel()
    for number in range(1, 6):
        channel.add(message(number))
    first, second, dropped = channel.take()
    assert (first.number, second.number) == (1, 2)
    assert (dropped.kind, unpack(dropped.payload)) == (SideMessageKind.DROPPED, 3)


def test_a_stream_waits_for_its_reader_and_is_ended_by_a_notice() -> None:
    channel, over = SideChannel(), threading.Event()
    took: list[bool] = []

    def give() -> None:
        while channel.add_value(message(1, SideMessageKind.YIELDED), over.is_set):
            took.append(True)

    thread = threading.Thread(target=give)
    thread.start()
    seen = [*channel.take()]
    while len(seen) < 2 * WINDOW:
        seen += channel.take()
    over.set()
    channel.wake()
    thread.join(5)
    assert not thread.is_alive()
    assert len(took) <= len(seen) + WINDOW


def test_answers_and_messages_travel_whole() -> None:
    import numpy as np

    small = Answer(7, AnswerKind.RETURNED, 1.0, 2.0, ((0, 0.5),), 0, 3, pack({"a": [1]}), (message(7),))
    assert type(encode_answer(small)) is bytes
    back = decode_answer(encode_answer(small))
    assert back.number == 7
    assert back.payload is not None
    assert unpack(back.payload) == {"a": [1]}
    assert back.messages == (message(7),)
    array = pack(np.zeros(100_000))
    assert len(array[0]) < 1_000  # the rest is beside it
    answer = small._replace(payload=array)
    assert type(encode_answer(answer)) is tuple
    payload = decode_answer(encode_answer(answer)).payload
    assert payload is not None
    assert unpack(payload).nbytes == 800_000
    assert decode_messages(encode_messages([message(1), message(2)])) == [message(1), message(2)]


class Hostile:
    """Does something whenever it is touched."""

    def __reduce__(self) -> Any:
        raise AssertionError("touched")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("touched")

    def __len__(self) -> int:
        raise AssertionError("touched")


def test_what_may_be_sent_within_the_call_of_another() -> None:
    import numpy as np

    class Text(str):
        __slots__ = ()

    plain: tuple[Any, ...] = (1, "a", b"b", None, [1.5, (2, {"k": [True]})], np.zeros(3))
    assert runs_no_code(plain)
    for value in (Hostile(), [Hostile()], {"k": Hostile()}, Text("x"), np.array([None], dtype=object)):
        assert not runs_no_code((value,))
    assert not runs_no_code((bytes(2 << 20),))
    assert not runs_no_code(([0] * 1_000_000,))
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    assert not runs_no_code((cyclic,))


def test_what_is_a_loss_and_what_belongs_to_a_call() -> None:
    """A node's death comes in many shapes: a job must not fail for what it has no part in."""
    from ray import exceptions

    losses = ["ActorDiedError", "ActorPlacementGroupRemoved", "ActorUnschedulableError", "NodeDiedError"]
    losses += ["ActorUnavailableError", "OwnerDiedError", "WorkerCrashedError", "LocalRayletDiedError"]
    owns = ["RayTaskError", "RaySystemError", "ObjectStoreFullError", "OutOfDiskError"]
    for names, expected in ((losses, True), (owns, False)):
        for name in names:
            kind = getattr(exceptions, name)
            assert is_loss(kind.__new__(kind)) is expected, name
    assert not is_loss(None)
    assert not is_loss(ModuleNotFoundError("of what is in a result"))
