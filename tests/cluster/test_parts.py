"""The parts that need no cluster: what a user says, what nodes are called, marks and notes."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from director import Device, Director, NoDevices, WorkerDied, share
from director._executors._ray.connection import _why
from director._executors._ray.inbox import ActorLost, Inbox, is_loss
from director._executors._ray.mark import NONE, Mark
from director._executors._ray.nodes import Names, Node
from director._executors._ray.notes import Notes, Notices
from director._executors._ray.pickling import loads
from director._executors._ray.reply import apart, opened, together
from director._executors._ray.tray import Tray
from director._executors._ray.wire import Answer, Word
from director._executors._ray.wishes import amounts_of
from director._executors._remote import Notice
from director.ray import RayExecutor

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"address": 5}, TypeError, "address must be a str"),
    ({"address": "ray://head:10001"}, ValueError, "Ray Client"),
    ({"address": "http://head:8265"}, ValueError, "as host:6379"),
    ({"address": ""}, ValueError, "as host:6379"),
    ({"resources": ["GPU"]}, TypeError, "resources must be a mapping"),
    ({"resources": {}}, ValueError, "resources is empty"),
    ({"resources": {"GPU": 0}}, ValueError, "more than nothing"),
    ({"resources": {"GPU": 1.5}}, ValueError, "whole GPUs"),
    ({"resources": {"GPU": -1}}, ValueError, "must not be negative"),
    ({"resources": {"GPU": "1"}}, TypeError, "must be a number"),
    ({"runtime_env": 3}, TypeError, "runtime_env must be a mapping"),
    ({"patience": float("inf")}, ValueError, "without end"),
    ({"grace": True}, TypeError, "grace must be a number"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG)
def test_what_a_user_can_not_say(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        RayExecutor(**arguments)


def test_a_cluster_that_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "set RAY_AUTH_MODE=token" in _why("10.0.0.1:6379", error, True)
    assert "ray start --head" in _why("10.0.0.1:6379", error, False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "ray start --head" in _why("10.0.0.1:6379", error, True)


def test_without_a_cluster_what_is_shared_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    value = [1, 2]
    assert share(value) is value


def test_slots_of_a_cluster_are_not_shared_by_name() -> None:
    with pytest.raises(ValueError, match="processes of one machine"):
        Director(executor=RayExecutor(), shared="here")


def test_what_devices_mean() -> None:
    bare, full = Node("1", "a", {"CPU": 4.0}), Node("2", "b", {"CPU": 8.0, "GPU": 2.0})
    assert amounts_of(None, None, [bare, full])[0] == {"GPU": 1.0}
    assert amounts_of("gpu", None, [full])[0] == {"GPU": 1.0}
    assert amounts_of("cpu", None, [full]) == ({"CPU": 1.0}, 1)
    assert amounts_of("cpu:3", None, [full]) == ({"CPU": 1.0}, 3)
    assert amounts_of(None, {"GPU": 2}, [full])[0] == {"GPU": 2}
    with pytest.raises(NoDevices, match="No node of the Ray cluster has a GPU"):
        amounts_of("gpu", None, [bare])
    for spec, resources in (("cuda:1", None), ([0], None), ("simulated:2", None), ("cpu", {"CPU": 1})):
        with pytest.raises(ValueError, match="devices="):
            amounts_of(spec, resources, [full])  # type: ignore[arg-type]


def test_a_cluster_without_gpus_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert amounts_of(None, None, [Node("1", "a", {"CPU": 4.0})]) == ({"CPU": 1.0}, 1)
    assert "No node of the Ray cluster has a GPU" in caplog.text


def test_how_many_devices_a_node_holds() -> None:
    node = Node("1", "a", {"CPU": 8.0, "GPU": 3.0})
    assert [node.holds(amounts) for amounts in ({"GPU": 1}, {"GPU": 0.5}, {"GPU": 2}, {"TPU": 1})] == [3, 6, 1, 0]
    assert node.holds({"GPU": 1, "CPU": 4}) == 2
    assert node.holds({"GPU": 0.1}) == 30  # not 29, as floats would have it


def listed(number: int, **facts: Any) -> dict[str, Any]:
    plain = {"Alive": True, "NodeName": "10.0.0.1", "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "gpu-a"}
    return {"NodeID": f"{number:08}", "Resources": {}, **plain, **facts}


def test_nodes_keep_names_of_their_own() -> None:
    names = Names()
    first = names.alive([listed(1), listed(2, NodeName="blue"), listed(3), listed(4, Alive=False)])
    assert [node.name for node in first] == ["gpu-a", "blue", "gpu-a-000000"]
    assert [node.name for node in names.alive([listed(3), listed(1)])] == ["gpu-a-000000", "gpu-a"]


def test_the_label_names_the_node() -> None:
    device = Device(1, "GPU-1", "H100", "cuda", node="gpu-a")
    assert device.label == "cuda:1@gpu-a"
    assert str(WorkerDied(None, device)) == "The actor on cuda:1@gpu-a, or its node, was lost in the midst of a job."


def test_a_mark_outlives_who_wrote_it(request: pytest.FixtureRequest) -> None:
    mark = Mark(f"director-test-{id(request)}.begun")
    request.addfinalizer(mark.remove)
    assert mark.read() == NONE
    mark.write(7)
    assert Mark(f"director-test-{id(request)}.begun").read() == 7


def test_only_what_has_not_begun_is_taken_back() -> None:
    notices = Notices()
    assert notices.begin(1)
    assert notices.withdraw([1, 2, 4]) == [2, 4]
    assert not notices.begin(2)
    assert notices.begin(3)
    assert not notices.begin(4)


def test_notices_of_calls_that_are_over_are_forgotten() -> None:
    notices = Notices()
    notices.begin(1)
    notices.post(1, Notice.CANCELLED)
    notices.post(2, Notice.TIME_IS_UP)
    assert notices.look(1) == Notice.CANCELLED
    notices.begin(2)
    assert (notices.look(1), notices.look(2)) == (Notice.NONE, Notice.TIME_IS_UP)
    notices.post(1, Notice.CANCELLED)
    assert notices.look(1) == Notice.NONE


def test_notes_come_in_order_and_wake_who_waits() -> None:
    notes = Notes()
    heard: list[Any] = []
    thread = threading.Thread(target=lambda: heard.extend(notes.take()[0]))
    thread.start()
    notes.add(1, "a")
    thread.join(5)
    notes.add(1, "b")
    notes.add(0, "c")
    assert [(number, loads(packed)) for number, packed in heard + notes.take()[0]] == [(1, "a"), (1, "b"), (0, "c")]


def test_too_many_notes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director._executors._ray.notes._MOST", 2)
    notes = Notes()
    for number in range(5):
        notes.add(1, number)
    assert [loads(packed) for _, packed in notes.take()[0]] == [0, 1, 3]


def test_answers_are_told_when_they_are_due_or_taken_by_who_returns_first() -> None:
    notes = Notes()
    notes.tell(1, Answer(Word.RETURNED, "life", value="held"), time.monotonic() + 1000.0)
    assert [number for number, _ in notes.untold()] == [1]
    notes.tell(2, Answer(Word.RETURNED, "life", value="due"), time.monotonic())
    told, answers = notes.take()
    assert (told, [number for number, _ in answers]) == ([], [2])
    ((number, sealed),) = apart(together(answers))
    assert (number, opened(sealed).value) == (2, "due")


def test_an_answer_that_cannot_be_sent_leaves_the_others_whole() -> None:
    answers = [Answer(Word.RETURNED, "life", value=value) for value in (1, threading.Lock(), {"a": [2]})]
    first, second, third = (opened(each) for _, each in apart(together(enumerate(answers))))
    assert (first.value, third.value) == (1, {"a": [2]})
    assert second.word == Word.UNSENDABLE
    assert "pickle" in second.value


def test_a_tray_takes_calls_only_while_somebody_serves_it() -> None:
    tray: Any = Tray()
    assert not tray.add(["early"])
    tray.serve(["a"])
    assert tray.add(["b", "c"])
    assert [tray.next() for _ in range(4)] == ["a", "b", "c", None]
    assert not tray.add(["late"])
    tray.serve(["d"])
    assert [tray.next(), tray.next()] == ["d", None]


def test_calls_that_were_refused_and_lost_are_told_apart() -> None:
    from concurrent.futures import Future

    from ray.exceptions import ActorDiedError

    class Reference:
        def __init__(self, outcome: Any) -> None:
            self.outcome = outcome

        def future(self) -> Any:
            future: Future[Any] = Future()
            if isinstance(self.outcome, BaseException):
                future.set_exception(self.outcome)
            else:
                future.set_result(self.outcome)
            return future

    inbox = Inbox()
    inbox.expect((1, 2), Reference(True))
    inbox.expect((3, 4), Reference(False))
    inbox.expect((5, 6), Reference(RuntimeError("an argument of one can't be unpickled")))
    inbox.expect((7,), Reference(together([(7, Answer(Word.RETURNED, "life", value=7))])))
    inbox.expect((8,), Reference((*Answer(Word.RETURNED, "life", value="large"),)))
    inbox.wait(0.0)
    assert inbox.refused == {3, 4, 5, 6}
    assert [inbox.has(number) for number in range(1, 9)] == [False] * 6 + [True, True]
    assert [opened(inbox.take(number)).value for number in (7, 8)] == [7, "large"]
    inbox.expect((9,), Reference(ActorDiedError()))
    inbox.grow_older()  # its loss is known
    inbox.wait(0.0)
    inbox.expect((10,), Reference(ActorDiedError()))
    with pytest.raises(ActorLost):
        inbox.wait(0.0)


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


def test_a_call_that_was_overtaken_is_not_taken_back() -> None:
    """Its number is behind that of one that has begun, so nobody may believe that either has not."""
    notices = Notices()
    assert notices.begin(4)
    assert notices.begin(2)
    assert notices.withdraw([3, 4, 5, 6]) == [5, 6]
    assert [notices.begin(number) for number in (7, 3, 5, 6)] == [True, True, False, False]


def test_a_mark_does_not_go_back(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mark = Mark("one")
    for number in (1, 4, 2):
        mark.write(number)
    assert Mark("one").read() == 4
