"""All that a slot's thread can do with one real child, in any order: each answer is of the call that it names."""

from __future__ import annotations

import gc
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

from harness.effort import examples
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from director import Device, JobState
from director._executors.process.child_process import ChildGone, ChildProcess
from director._executors.process.encoding import CallMessage, ProcessCall
from director._executors.remote.calls import CallState
from director._ipc.by_name import pack
from director._ipc.frames import AnswerKind, RequestKind
from director._ipc.protocol import NO_FACTS, UNNUMBERED, CallStyle
from director._ipc.shared_page import WINDOW, Notice
from executors.process import hostile_calls as hostile
from executors.process.leaks import open_files, stop

DEVICE = Device(index=0, uuid="CPU-0", name="cpu:0", kind="cpu")
PATIENCE = 20.0
SIZES = st.sampled_from([0, 100, 8_000, 40_000, 3_000_000])
UNDER_WAY = 8  # calls at most


class Wire(RuleBasedStateMachine):
    """The parent's side, without a Director: what was sent, and what has come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.files = open_files()
        self.bell = os.eventfd(0)
        self.child: ChildProcess | None = None
        self.whose = 0
        self.calls: dict[ProcessCall, tuple[int, Any]] = {}  # whose it is, and what it must return
        self.values: dict[ProcessCall, int] = {}  # how many of a stream were received
        self.is_stopped = False
        self.start()

    def start(self) -> None:
        self.child = ChildProcess(DEVICE, self.bell)

    def send(self, fn: Any, args: tuple[Any, ...], result: Any, style: CallStyle = CallStyle.WITH_RESOURCE) -> None:
        assert self.child is not None
        self.whose += 1
        call = ProcessCall([SimpleNamespace(state=JobState.RUNNING, is_wanted=True)], fn, args, style)  # type: ignore[list-item]
        args = tuple(self.whose if arg == "whose" else arg for arg in args)
        payload = pack((fn, "call", args, None), lambda: "it")
        message = CallMessage(RequestKind.FIRST_CALL, UNNUMBERED, UNNUMBERED, NO_FACTS, b"", payload)
        try:
            self.child.send(call, message)
        except BlockingIOError:
            assert call.state is CallState.QUEUED, "it has gone nowhere"
            return
        self.calls[call] = self.whose, result
        self.values[call] = 0

    def is_open(self) -> bool:
        return self.under_way < UNDER_WAY

    @property
    def under_way(self) -> int:
        return sum(call.state in (CallState.SENT, CallState.BEGUN) for call in self.calls)

    # ---- steps

    @precondition(is_open)
    @rule(size=SIZES)
    def send_a_call(self, size: int) -> None:
        self.send(hostile.say, ("whose", size), size)

    @precondition(is_open)
    @rule(size=SIZES)
    def send_an_argument(self, size: int) -> None:
        self.send(hostile.give_back, ("whose", b"." * size), size)

    @precondition(is_open)
    @rule(size=SIZES, kind=st.sampled_from([ValueError, SystemExit]))
    def send_one_that_can_not_be_received(self, size: int, kind: type[BaseException]) -> None:
        self.send(hostile.say, ("whose", hostile.Raiser(kind, size)), kind)

    @precondition(is_open)
    @rule(size=SIZES)
    def send_one_that_reports(self, size: int) -> None:
        self.send(hostile.report_raisers, ("whose", size), "reports")

    @precondition(is_open)
    @rule(size=SIZES, count=st.integers(0, 2 * WINDOW))
    def send_a_stream(self, size: int, count: int) -> None:
        self.send(hostile.speak, ("whose", count, size), None, CallStyle.STREAM)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        call = data.draw(st.sampled_from([call for call in self.calls if call.state is not CallState.ENDED]))
        call.jobs[0].state = JobState.CANCELLED
        call.notify(Notice.CANCELLED)
        self.calls[call] = self.calls[call][0], "cancelled or not"

    @rule()
    def take_back_all(self) -> None:
        self.take_back(None)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def take_back_all_but_one(self, data: Any) -> None:
        self.take_back(data.draw(st.sampled_from([call for call in self.calls if call.number >= 0])))

    def take_back(self, current: ProcessCall | None) -> None:
        assert self.child is not None
        before = {call for call in self.calls if call.state in (CallState.SENT, CallState.BEGUN)}
        returned = self.child.take_back(current)
        assert current not in returned
        assert set(returned) <= before
        for call in returned:
            assert call.state is CallState.QUEUED
            del self.calls[call], self.values[call]

    @rule(is_one_of_many=st.booleans())
    def receive(self, is_one_of_many: bool) -> None:
        self.receive_one(is_one_of_many)

    @rule()
    def stop(self) -> None:
        assert self.child is not None
        stop(self.child.pid)
        self.is_stopped = True

    @rule()
    def go_on(self) -> None:
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGCONT)
        self.is_stopped = False

    @rule(often=st.sampled_from([False] * 9 + [True]))
    def kill(self, often: bool) -> None:
        if not often:
            return
        child = self.child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        self.is_stopped = False
        while True:
            try:
                if not self.receive_one():
                    child.wait(PATIENCE)
            except ChildGone:
                break
        for call in child.lose():
            assert call.state is CallState.QUEUED
            del self.calls[call], self.values[call]
        assert child.reap() == -signal.SIGKILL
        for call in [call for call in self.calls if call.state is CallState.LOST]:
            del self.calls[call], self.values[call]
        assert not self.under_way
        self.start()

    # ---- what must hold

    def receive_one(self, is_one_of_many: bool = False) -> bool:
        assert self.child is not None
        received = self.child.receive(is_one_of_many)
        if received is None:
            return False
        answer, call = received
        if call is None:
            assert answer.kind in (AnswerKind.READY, AnswerKind.LOGGED)
            return True
        assert call.number == answer.number
        whose, result = self.calls[call]
        if answer.kind == AnswerKind.YIELDED:
            assert self.child.content(answer)[:2] == (whose, self.values[call])
            self.values[call] += 1
            self.child.grant(call, answer)
        elif answer.kind == AnswerKind.REPORTED:
            self.child.drop(answer)
        else:
            self.check(answer, whose, result)
            assert call.state is CallState.ENDED
            if call.style == CallStyle.STREAM and result is None:
                assert self.values[call] == call.args[1]
        return True

    def check(self, answer: Any, whose: int, result: Any) -> None:
        assert self.child is not None
        content = self.child.content(answer)
        if answer.kind == AnswerKind.RAISED:
            assert isinstance(result, type) or result == "cancelled or not", content
        elif isinstance(result, int):
            assert content == (whose, b"." * result)
        elif result == "reports":
            assert content == whose

    @invariant()
    def no_call_is_lost_while_the_child_lives(self) -> None:
        assert all(call.state is not CallState.LOST for call in self.calls)

    def teardown(self) -> None:
        child = self.child
        assert child is not None
        try:
            os.kill(child.pid, signal.SIGCONT)
            until = time.monotonic() + PATIENCE
            while self.under_way:
                if not self.receive_one():
                    child.wait(1.0)
                assert time.monotonic() < until, "an answer is missing"
            child.dismiss()
        finally:
            child.signal(signal.SIGKILL)
            child.reap()
            os.close(self.bell)
        del child, self.child
        self.calls.clear()
        self.values.clear()
        gc.collect()  # the pages of children are closed when they are forgotten
        assert open_files() <= self.files


TestWire = Wire.TestCase
TestWire.settings = settings(
    max_examples=examples(5),
    stateful_step_count=30,
    phases=[Phase.generate],  # each example starts a child
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
