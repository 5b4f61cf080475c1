"""The parts that need no child: messages, sockets, the end of a call, the page, names of functions, segments."""

from __future__ import annotations

import errno
import functools
import itertools
import math
import os
import pickle
import resource
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from signal import Signals
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director._executors.process import encoding as call
from director._executors.process.child.answer_writer import AnswerWriter
from director._executors.process.child.streaming import run_generator
from director._executors.process.child_process import ChildProcess
from director._executors.process.termination import Termination, Unkillable
from director._ipc import by_name as references
from director._ipc import frames as wire
from director._ipc import shared_memory as segments
from director._ipc.channel import Receiver, send, send_all
from director._ipc.frames import AnswerKind, RequestKind, WireBroken
from director._ipc.pickling import Payload, unwrap, wrap
from director._ipc.protocol import Facts
from director._ipc.shared_page import PLACES, SIZE, WINDOW, Notice, SharedPage
from executors.process import calls
from executors.process.leaks import open_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# ---- messages


@given(
    st.sampled_from(RequestKind),
    st.integers(0, 2**62),
    st.integers(-1, 2**31 - 1),
    st.tuples(st.integers(0, 2**63), st.integers(), st.integers(0, 2**40), st.floats(0)),
    st.binary(max_size=100),
    st.binary(max_size=100),
    st.integers(0, 2**60),
)
def test_a_request_comes_back(
    kind: RequestKind, number: int, function: int, facts: Any, tenant: bytes, content: bytes, length: int
) -> None:
    whole = wire.renumbered(number, wire.request(kind, 3, function, 5, Facts(*facts), tenant, length, content))
    head = wire.request_head(whole)
    assert head[:7] == (number, kind, bool(length), 3, function, 5, length or len(content))
    assert (head[7], *head[9:]) == (facts[0], *facts[2:])
    assert head[8] == min(max(facts[1], -(2**63)), 2**63 - 1), "no priority breaks a message"
    assert whole[wire.CONTENT :] == content + tenant


@given(st.sampled_from(AnswerKind), st.integers(0, 2**63), st.binary(max_size=100), st.integers(0, 2**60))
def test_an_answer_comes_back(kind: AnswerKind, number: int, content: bytes, length: int) -> None:
    found = wire.read_answer(memoryview(wire.answer_head(5, number, kind, 0, length, 0.5, 1.5) + content), [])
    assert found == (5, number, kind, 0, length, 0.5, 1.5, content, -1)


def test_what_is_no_answer_breaks_the_wire() -> None:
    with pytest.raises(WireBroken, match="7 bytes"):
        wire.read_answer(memoryview(b"garbage"), [])
    with pytest.raises(WireBroken, match="2 descriptors in a message that says 1"):
        wire.read_answer(memoryview(wire.answer_head(0, 1, AnswerKind.RETURNED, 1, 5, 0.0, 0.0)), [3, 4])


# ---- sockets


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    before = open_files()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs
    assert open_files() == before


@pytest.mark.parametrize("is_rested", [False, True])
def test_messages_keep_their_borders_and_their_descriptors(
    ends: tuple[socket.socket, socket.socket], is_rested: bool
) -> None:
    receiver = Receiver(ends[1])
    assert receiver.receive() is None
    contents = [bytes([n]) * size for n, size in enumerate((0 + 1, 100, wire.LONGEST))]
    for content in contents:
        send(ends[0], content)
        with segments.filled(wrap(content)) as (descriptor, length):
            send(ends[0], b"with %d" % length, descriptor)
    for content in contents:
        for expected in (content, None):
            received = receiver.receive_at_once() if is_rested else receiver.receive()
            assert received is not None
            message, descriptors = bytes(received[0]), received[1]
            if expected is not None:
                assert (message, descriptors) == (content, [])
            else:
                assert not os.get_inheritable(descriptors[0])
                assert segments.read(descriptors[0], int(message.split()[1])) == content
    ends[0].close()
    assert receiver.receive() == (b"", [])
    assert receiver.receive_at_once() == (b"", [])


@contextmanager
def no_turn_for_others() -> Iterator[None]:
    """Fail if the block releases the GIL while another thread waits for it."""
    before, turns, ready, gate = sys.getswitchinterval(), [], threading.Event(), threading.Lock()

    def wait() -> None:
        ready.set()
        gate.acquire()
        turns.append("taken")

    gate.acquire()
    sys.setswitchinterval(600.0)  # seconds: the GIL is not given to another thread unless it is released
    other = threading.Thread(target=wait)
    try:
        other.start()
        ready.wait()
        gate.release()
        sum(range(1_000_000))  # long enough for the other thread to ask for the GIL
        yield
        assert not turns
    finally:
        sys.setswitchinterval(before)
        other.join()


def test_a_message_is_sent_and_received_without_releasing_the_gil(ends: tuple[socket.socket, socket.socket]) -> None:
    """Beside an event loop that computes, a slot's thread would wait for it 5 ms each time."""
    receiver = Receiver(ends[1])
    with no_turn_for_others():
        send(ends[0], b"small")
        assert receiver.receive() == (b"small", [])
    with no_turn_for_others():
        with segments.filled(wrap(bytes(100_000))) as (descriptor, length):
            send(ends[0], b"large", descriptor)
        received = receiver.receive()
        assert received is not None
        assert segments.read(received[1][0], length) == bytes(100_000)


def test_many_messages_are_sent_at_once_as_far_as_there_is_room(ends: tuple[socket.socket, socket.socket]) -> None:
    receiver = Receiver(ends[1])
    assert send_all(ends[0], [b"%d" % n for n in range(10)]) == 10
    assert [receiver.receive_at_once() == (b"%d" % n, []) for n in range(10)] == [True] * 10
    sent = send_all(ends[0], [b"%d" % n + bytes(30_000) for n in range(20)])
    assert 0 < sent < 20
    assert send_all(ends[0], [bytes(30_000)]) == 0
    for n in range(sent):
        received = receiver.receive()
        assert received is not None
        assert bytes(received[0][:2]).rstrip(b"\0") == b"%d" % n


def test_a_message_that_is_too_long_is_refused_with_its_descriptors(ends: tuple[socket.socket, socket.socket]) -> None:
    with segments.filled(wrap(1)) as (descriptor, _):
        send(ends[0], bytes(wire.LONGEST + 1), descriptor)
    with pytest.raises(WireBroken, match="too long"):
        Receiver(ends[1]).receive()


def test_of_messages_that_are_received_together_only_the_one_that_is_too_long_is_refused(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    receiver = Receiver(ends[1])
    contents = [b"before", bytes(wire.LONGEST + 1), b"after", b"never asked for"]
    for content in contents:
        with segments.filled(wrap(content)) as (descriptor, _):
            send(ends[0], content, descriptor)
    for content in contents[:3]:
        if len(content) > wire.LONGEST:
            with pytest.raises(WireBroken, match="too long"):
                receiver.receive_at_once()
            continue
        received = receiver.receive_at_once()
        assert received is not None
        assert received[0] == content
        assert len(received[1]) == 1
        assert not os.get_inheritable(received[1][0])
        os.close(received[1][0])
    receiver.close()
    assert receiver.receive_at_once() is None


def test_either_way_of_receiving_goes_on_where_the_other_has_stopped(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    receiver = Receiver(ends[1])
    assert send_all(ends[0], [b"%d" % n for n in range(40)]) == 40
    for n in range(40):
        assert (receiver.receive() if n % 3 else receiver.receive_at_once()) == (b"%d" % n, [])
    assert (receiver.receive_at_once(), receiver.receive()) == (None, None)


def test_a_full_socket_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    def fill() -> None:
        while True:
            send(ends[0], bytes(wire.LONGEST))

    with pytest.raises(BlockingIOError):
        fill()


def test_a_descriptor_for_which_there_is_no_number_is_missed_by_its_message_alone(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    receiver = Receiver(ends[1])
    for n in range(3):
        with segments.filled(wrap(n)) as (descriptor, length):
            send(ends[0], b"%d %d" % (n, length), descriptor)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    values: list[Any] = []
    for n in range(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (0 if n == 1 else limits[0], limits[1]))
        try:
            received = receiver.receive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert received is not None
        message, descriptors = received
        assert bytes(message).startswith(b"%d " % n)
        try:
            values.append(segments.read(descriptors[0] if descriptors else -1, int(bytes(message).split()[1])))
        except OSError as error:
            values.append(error.errno)
    assert values == [0, errno.EMFILE, 2]


# ---- the end of a call


def test_a_call_is_ended_step_by_step() -> None:
    sent: list[signal.Signals] = []
    termination = Termination(grace=2.0)
    termination.escalate(100.0, sent.append)
    assert termination.timeout(100.0) is None
    termination.begin(10.0)
    termination.begin(20.0)
    assert termination.timeout(7.0) == 3.0
    termination.escalate(9.9, sent.append)
    assert sent == []
    termination.escalate(10.0, sent.append)
    assert sent == [signal.SIGTERM]
    assert termination.timeout(10.5) == 1.5
    termination.escalate(12.0, sent.append)
    assert sent == [signal.SIGTERM, signal.SIGKILL]
    assert termination.timeout(30.0) == 0.0
    with pytest.raises(Unkillable):
        termination.escalate(30.0, sent.append)
    assert sent == [signal.SIGTERM, signal.SIGKILL]


# ---- the page


@pytest.fixture
def pages() -> tuple[SharedPage, SharedPage]:
    """The same page twice."""
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, SIZE)
    both = SharedPage(descriptor), SharedPage(descriptor)
    os.close(descriptor)
    return both


def test_a_notice_is_for_one_call(pages: tuple[SharedPage, SharedPage]) -> None:
    here, there = pages
    here.post(5, Notice.CANCELLED)
    assert [there.look(n) for n in (4, 5, 6)] == [Notice.NONE, Notice.CANCELLED, Notice.NONE]
    assert there.look(5 + PLACES) == Notice.NONE, "it has the same entry"
    here.post(5 + PLACES, Notice.TIME_IS_UP)
    assert (there.look(5), there.look(5 + PLACES)) == (Notice.NONE, Notice.TIME_IS_UP)
    assert not there.is_ending
    for n in range(3 * PLACES):
        here.post(n, 3)
    assert not there.is_ending
    here.end()
    assert there.is_ending
    here.post(2**40, Notice.CANCELLED)
    assert there.look(2**40) == Notice.CANCELLED


def test_what_was_taken_of_one_stream_is_no_room_for_another(pages: tuple[SharedPage, SharedPage]) -> None:
    here, there = pages
    assert [there.is_full(7, n) for n in (0, WINDOW - 1, WINDOW)] == [False, False, True]
    here.take(7, 1000)
    assert not there.is_full(7, 1000 + WINDOW - 1)
    assert there.is_full(7, 1000 + WINDOW)
    assert there.is_full(8, WINDOW), "the next stream"
    here.take(7, 2**32 - 1)
    assert not there.is_full(7, 2**32 + WINDOW - 2)
    assert there.is_full(7, 2**32 + WINDOW - 1)


@pytest.mark.parametrize(("segments", "most"), [([0], WINDOW), ([1], WINDOW // 2), ([0, 1], 6), ([1, 0, 0], 6)])
def test_a_generator_makes_fewer_large_values_ahead(
    pages: tuple[SharedPage, SharedPage], segments: list[int], most: int
) -> None:
    told: list[int] = []
    wake = os.eventfd(0, os.EFD_NONBLOCK)

    def tell(value: int) -> int:
        told.append(value)
        return segments[value % len(segments)]

    try:
        with pytest.raises(BlockingIOError):  # instead of waiting
            run_generator((n for n in range(100)), pages[1], 7, wake, tell)
    finally:
        os.close(wake)
    assert told == list(range(most))


def test_a_child_that_waits_for_room_is_woken_whatever_was_large(pages: tuple[SharedPage, SharedPage]) -> None:
    here, there = pages
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    parent: Any = SimpleNamespace(page=here, _wake=wake)
    for number, of_each in enumerate(itertools.product([0, 1], repeat=WINDOW + 3)):
        call: Any = SimpleNamespace(number=number, taken=0)
        sent, under_way = 0, []
        for segment in of_each:
            while there.is_full(number, sent):
                is_woken = False
                while not is_woken:
                    answer: Any = SimpleNamespace(segments=under_way.pop(0))  # an IndexError: it waits for ever
                    ChildProcess.grant(parent, call, answer)
                    with suppress(BlockingIOError):
                        is_woken = os.eventfd_read(wake) > 0
            under_way.append(segment)
            sent += 1 + segment
    os.close(wake)


# ---- names


def test_a_function_is_known_by_its_name() -> None:
    name = references.name_of(calls.echo)
    assert name is not None
    assert name.sendable is calls.echo
    assert references.name_of(calls.echo) is name
    assert references.name_of(calls.add).number != name.number  # type: ignore[union-attr]


def test_one_that_its_decorator_hides_is_reached_through_it() -> None:
    hidden = calls.wrapped.__wrapped__
    again = pickle.loads(pickle.dumps(references.sendable(hidden)))
    assert again is hidden
    part = pickle.loads(pickle.dumps(references.sendable(functools.partial(hidden, value=3))))
    assert part.func is hidden


def test_what_no_name_leads_to() -> None:
    assert references.name_of(lambda: 1) is None
    assert references.name_of(len) is None  # pickle knows it
    assert references.sendable(len) is len
    renamed = functools.partial(calls.echo)
    assert references.sendable(renamed) is renamed


# ---- segments


@given(st.lists(st.integers(0, 300), max_size=5), st.booleans())
def test_pieces_are_found_again(sizes: list[int], frozen: bool) -> None:
    parts = [memoryview(bytes(size) if frozen else bytearray(size)) for size in sizes]
    views: list[Any] = [pickle.PickleBuffer(part) for part in parts]
    buffers: list[memoryview] = []
    stream = pickle.dumps(views, 5, buffer_callback=lambda b: buffers.append(b.raw()))
    payload = Payload(stream, buffers)
    memory = bytearray(sum(sizes) + len(stream) + 1000)
    for offset, piece in payload.pieces():
        memory[offset : offset + len(piece)] = piece
    value = unwrap(memoryview(memory))
    assert [len(view) for view in value] == sizes
    assert all(view.readonly == frozen for view in value)
    assert math.inf > len(memory)


@given(st.lists(st.integers(0, 300), max_size=4))
def test_a_segment_is_its_receiver_s_alone(sizes: list[int]) -> None:
    views: list[Any] = [pickle.PickleBuffer(bytearray(size)) for size in sizes]
    buffers: list[memoryview] = []
    stream = pickle.dumps(views, 5, buffer_callback=lambda b: buffers.append(b.raw()))
    with segments.filled(Payload(stream, buffers)) as (descriptor, length):
        one, two = (segments.read(os.dup(descriptor), length) for _ in range(2))
    for view in one:
        view[:] = b"x" * len(view)
    assert [bytes(view) for view in two] == [bytes(size) for size in sizes]


def test_a_segment_that_is_too_short_is_no_bus_error() -> None:
    with segments.filled(wrap(1)) as (descriptor, length), pytest.raises(OSError, match="shorter"):
        segments.read(os.dup(descriptor), length + 1)


# ---- the child's way out


@pytest.fixture
def written() -> Iterator[tuple[AnswerWriter, Callable[[], list[Any]]]]:
    """A writer, and what has come of it: kind, number and content of each answer, in sequence."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiver, count = Receiver(theirs), itertools.count()

    def read() -> list[Any]:
        answers = []
        while (received := receiver.receive()) is not None:
            answer = wire.read_answer(*received)
            assert answer.sequence == next(count)
            answers.append((answer.kind, answer.number, ChildProcess.content(answer)))
        return answers

    with ours, theirs:
        yield AnswerWriter(ours), read


@pytest.mark.parametrize("size", [10, 8_000, 100_000])
def test_what_a_finalizer_says_in_the_midst_of_an_answer_comes_after_it(
    written: tuple[AnswerWriter, Callable[[], list[Any]]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector may run between any two steps, and finalizers log."""
    writer, read = written
    post = AnswerWriter._post

    def interrupted(self: AnswerWriter, kind: int, *rest: Any) -> None:
        if kind == AnswerKind.RETURNED:
            writer.send_plain(AnswerKind.LOGGED, 0, "small")
            writer.send_plain(AnswerKind.LOGGED, 0, "x" * size)
        post(self, kind, *rest)

    monkeypatch.setattr(AnswerWriter, "_post", interrupted)
    writer.send_value(AnswerKind.RETURNED, 1, "first" * size)
    assert read() == [
        (AnswerKind.RETURNED, 1, "first" * size),
        (AnswerKind.LOGGED, 0, "small"),
        (AnswerKind.LOGGED, 0, "x" * size),
    ]


def test_what_can_not_be_sent_takes_no_place(
    written: tuple[AnswerWriter, Callable[[], list[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, read = written
    writer.send_value(AnswerKind.YIELDED, 1, "first")
    with pytest.raises(pickle.PicklingError):
        writer.send_value(AnswerKind.YIELDED, 1, threading.Lock())
    with monkeypatch.context() as patch:
        patch.setattr(segments, "_write", refuse)
        with pytest.raises(OSError, match="No space"):
            writer.send_value(AnswerKind.YIELDED, 1, "x" * 100_000)
    writer.send_value(AnswerKind.RETURNED, 1, None)
    assert read() == [(AnswerKind.YIELDED, 1, "first"), (AnswerKind.RETURNED, 1, None)]


def refuse(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_threads_do_not_mix_their_answers(written: tuple[AnswerWriter, Callable[[], list[Any]]]) -> None:
    writer, read = written

    def say(who: int) -> None:
        for n in range(20):
            writer.send_value(AnswerKind.REPORTED, who, (who, n, "x" * (40_000 * (n % 2))))

    threads = [threading.Thread(target=say, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    answers = []
    while len(answers) < 60:
        answers += [content for _, _, content in read()]
    for thread in threads:
        thread.join()
    assert all([n for who, n, _ in answers if who == one] == list(range(20)) for one in range(3))


# ---- what is sent ahead


class Rude:
    """It would be a fault if this were looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(f"{name} was asked for")


@pytest.mark.parametrize("value", [1, True, "x", b"x", None, 1.5, (1, ["x", {"a": (None,)}])])
def test_plain_values_may_be_sent_ahead(value: Any) -> None:
    assert call._are_plain((value,))


def test_other_values_may_not() -> None:
    deep: Any = ((((((1,),),),),),)
    for value in (Rude(), [Rude()], {"a": Rude()}, Signals.SIGINT, "x" * 5000, deep, print, bytearray(1)):
        assert not call._are_plain((value,))
