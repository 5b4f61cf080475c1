"""The parts that need no child: frames, the ladder, the board, names of functions, segments between two ends."""

from __future__ import annotations

import fcntl
import functools
import math
import os
import pickle
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from director._executors._process import references, segments, unyielding, wire
from director._executors._process.board import PLACES, SIZE, Board, Notice
from director._executors._process.ladder import Ladder, Lost
from director._executors._process.outlet import Outlet
from director._executors._process.parcels import Parcel, unwrap, wrap
from director._executors._process.wire import Ask, Load, Tell
from process import calls
from process.leaks import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator

# ---- reading and writing that keep the GIL


def test_one_read_has_all_that_a_pipe_holds() -> None:
    ours, theirs = os.pipe()
    try:
        held = fcntl.fcntl(theirs, fcntl.F_GETPIPE_SZ)
        for _ in range(held // wire.LONGEST_ANSWER):
            os.write(theirs, bytes(wire.LONGEST_ANSWER))
        assert len(unyielding.Reader(ours).read()) == held, "else an answer could be cut in two"
    finally:
        os.close(ours)
        os.close(theirs)


def test_what_has_no_room_at_once_is_sent_all_the_same() -> None:
    content = bytes(range(256)) * 16_384
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=unyielding.send, args=(ours, content))
        sender.start()
        found = bytearray()
        while len(found) < len(content):
            found += theirs.recv(1 << 16)
        sender.join()
    assert found == content


# ---- frames


@given(
    st.sampled_from(Ask),
    st.integers(0, 255),
    st.integers(0, 2**63),
    st.integers(-1, 2**31 - 1),
    st.integers(-1, 2**31 - 1),
    st.tuples(st.integers(0, 2**63), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40), st.floats(0)),
    st.binary(max_size=wire.ROOM_IN_REQUEST),
    st.integers(0, 2**60),
)
def test_a_request_comes_back(
    kind: Ask, freed: int, number: int, function: int, model: int, facts: Any, inline: bytes, length: int
) -> None:
    load = Load(inline, 3, length)
    frame = wire.request(kind, freed, number, function, model, wire.Facts(*facts), load)
    assert len(frame) == wire.FRAME
    assert wire.head_of(frame) == (kind, freed, 3, len(inline), function, model, length, number)
    assert wire.facts_of(frame) == facts
    assert frame[wire.INLINE :][: len(inline)] == inline


@given(st.lists(st.tuples(st.sampled_from(Tell), st.integers(0, 2**63), st.binary(max_size=wire.ROOM_IN_ANSWER))))
def test_answers_come_back_however_many_there_are(answers: list[tuple[Tell, int, bytes]]) -> None:
    stream = b"".join(wire.answer(kind, 1, number, Load(inline), 0.5, 1.5) for kind, number, inline in answers)
    found = [(answer.kind, answer.number, answer.load.inline) for answer in wire.read_answers(stream)]
    assert found == answers


def test_an_answer_is_written_in_one_piece() -> None:
    longest = wire.answer(Tell.LOGGED, 0, 0, Load(bytes(wire.ROOM_IN_ANSWER)), 0.0, 0.0)
    assert len(longest) == wire.LONGEST_ANSWER <= os.pathconf("/", "PC_PIPE_BUF")


# ---- the ladder


def test_the_ladder_is_climbed_step_by_step() -> None:
    sent: list[signal.Signals] = []
    ladder = Ladder(grace=2.0)
    ladder.climb(100.0, sent.append)
    assert ladder.patience(100.0) is None
    ladder.begin(10.0)
    ladder.begin(20.0)
    assert ladder.patience(7.0) == 3.0
    ladder.climb(9.9, sent.append)
    assert sent == []
    ladder.climb(10.0, sent.append)
    assert sent == [signal.SIGTERM]
    assert ladder.patience(10.5) == 1.5
    ladder.climb(12.0, sent.append)
    assert sent == [signal.SIGTERM, signal.SIGKILL]
    assert ladder.patience(30.0) == 0.0
    with pytest.raises(Lost):
        ladder.climb(30.0, sent.append)
    assert sent == [signal.SIGTERM, signal.SIGKILL]


# ---- the board


@pytest.fixture
def boards() -> tuple[Board, Board]:
    """The same page twice."""
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, SIZE)
    both = Board(descriptor), Board(descriptor)
    os.close(descriptor)
    return both


def test_what_one_side_posts_the_other_sees(boards: tuple[Board, Board]) -> None:
    here, there = boards
    here.post(5, Notice.CANCELLED)
    assert [there.look(n) for n in (4, 5, 6)] == [Notice.NONE, Notice.CANCELLED, Notice.NONE]
    here.post(5 + PLACES, Notice.NONE)  # a new request has taken the place
    assert there.look(5 + PLACES) == Notice.NONE
    assert not there.is_ending
    here.post(PLACES - 1, Notice.TIME_IS_UP)
    assert not there.is_ending
    here.end()
    assert there.is_ending


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


class Ends:
    """A sender and a receiver in one process."""

    def __init__(self) -> None:
        self.sockets = socket.socketpair()
        self.sender = segments.Shipments(self.sockets[0])
        self.receiver = segments.Arrivals(self.sockets[1])

    def pass_on(self, value: Any) -> tuple[Load, Any]:
        load = self.sender.send(wrap(value), 100)
        received = self.receiver.receive(load)
        self.sender.freed(self.receiver.take_freed())
        return load, received

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        for end in self.sockets:
            end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    before = open_files()
    ends = Ends()
    yield ends
    ends.close()
    assert open_files() == before


def test_what_is_small_stays_in_the_frame(ends: Ends) -> None:
    load, value = ends.pass_on("small")
    assert (load.segment, value) == (wire.NOWHERE, "small")
    assert ends.receiver.receive(Load()) is None


def test_one_segment_is_enough_while_nobody_keeps_it(ends: Ends) -> None:
    loads = [ends.pass_on("x" * 1000)[0] for _ in range(10)]
    assert {load.segment & 0x1F for load in loads} == {0}
    assert [bool(load.segment & 0x40) for load in loads] == [True] + 9 * [False]


def test_kept_segments_are_not_filled_again(ends: Ends) -> None:
    array = np.ones(2 << 20, np.uint8)
    kept = []
    for n in range(2 * segments.KEPT):
        array[:] = n
        kept.append(ends.pass_on(array)[1])
    assert [int(one[0]) for one in kept] == list(range(2 * segments.KEPT))
    kept.clear()
    ends.sender.freed(ends.receiver.take_freed())
    load, _ = ends.pass_on(array)
    assert not load.segment & 0x40, "its descriptor is there already"


def test_what_is_very_large_travels_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "KEPT_SIZE", 1 << 20)
    before = open_files()
    load, value = ends.pass_on(b"x" * (2 << 20))
    assert load.segment & 0x20
    assert len(value) == 2 << 20
    assert open_files() == before


def test_a_receiver_without_descriptors_says_so(ends: Ends) -> None:
    load = ends.sender.send(wrap("x" * 1000), 100)
    ends.sockets[1].recv(1)  # the descriptor has got lost, as when there is no number left for it
    ends.sockets[0].send(b".")
    with pytest.raises(OSError, match="Too many open files"):
        ends.receiver.receive(load)


@given(st.lists(st.integers(0, 300), max_size=5), st.booleans())
def test_pieces_are_found_again(sizes: list[int], frozen: bool) -> None:
    parts = [memoryview(bytes(size) if frozen else bytearray(size)) for size in sizes]
    views: list[Any] = [pickle.PickleBuffer(part) for part in parts]
    buffers: list[memoryview] = []
    stream = pickle.dumps(views, 5, buffer_callback=lambda b: buffers.append(b.raw()))
    parcel = Parcel(stream, buffers)
    memory = bytearray(sum(sizes) + len(stream) + 1000)
    for offset, piece in parcel.pieces():
        memory[offset : offset + len(piece)] = piece
    value, is_used = unwrap(memoryview(memory))
    assert is_used == bool(sizes)
    assert [len(view) for view in value] == sizes
    assert all(view.readonly == frozen for view in value)
    assert math.inf > len(memory)


# ---- the child's way out


def test_what_a_finalizer_says_in_the_midst_of_an_answer_comes_after_it() -> None:
    """The collector may run between any two steps, and finalizers log; what is small needs nobody to wait."""

    class Interrupted(segments.Shipments):
        def send(self, parcel: Parcel, room: int) -> Load:
            if parcel.stream == wrap(first).stream:
                outlet.tell(Tell.LOGGED, 0, "small")
                outlet.tell(Tell.LOGGED, 0, between)
            return super().send(parcel, room)

    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    outlet = Outlet(writing, Interrupted(ours), segments.Arrivals(ours))
    first, between = "first" * 1000, "between" * 1000
    outlet.tell(Tell.RETURNED, 1, first)
    outlet.tell(Tell.RETURNED, 2, "second")
    arrivals = segments.Arrivals(theirs)
    answers = [arrivals.receive(answer.load) for answer in wire.read_answers(os.read(reading, 1 << 16))]
    assert answers == ["small", first, between, "second"]
    for descriptor in (reading, writing):
        os.close(descriptor)
    for end in (ours, theirs):
        end.close()
