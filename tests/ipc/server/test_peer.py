"""Messages of one connection: whole, in order, many in a frame; what is no frame ends it."""

from __future__ import annotations

import asyncio
import marshal
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from server.conftest import until

from director._ipc.frames import INLINE
from director._ipc.server.body import Body, content_of, loaded
from director._ipc.server.peer import Kind, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director._ipc.server.peer import Message

LARGE = 3 << 20


class End:
    """A `Peer`, and what it has taken."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.taken: list[Message] = []
        self.turns: list[int] = []  # how many messages came at once
        self.is_lost = False
        self.not_sent: list[int] = []
        self.peer = Peer(
            connection,
            asyncio.get_running_loop(),
            self._take,
            self._lost,
            lambda number, _: self.not_sent.append(number),
        )

    def _take(self, messages: list[Message]) -> None:
        self.taken += messages
        self.turns.append(len(messages))

    def _lost(self) -> None:
        self.is_lost = True

    def _not_sent(self, number: int, _problem: OSError) -> None:
        self.not_sent.append(number)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    """Two ends of a connection."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair = End(one), End(other)
    yield pair
    for end in pair:
        end.peer.close()


class Pipe:
    """A pipe whose writing end is sent away."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()

    def is_closed(self) -> bool:
        """Whether nobody has the writing end, once it is closed here."""
        os.close(self.writer)
        os.set_blocking(self._reader, False)
        try:
            return not os.read(self._reader, 1)
        except BlockingIOError:
            return False
        finally:
            os.close(self._reader)


def content(value: Any) -> bytes | Body:
    return content_of(value, lambda: "it")


async def test_a_message_arrives_with_all_that_it_has(ends: tuple[End, End]) -> None:
    mine, theirs = ends
    mine.peer.send(Kind.RETURNED, 7, ("a", None, 1.5), content([1]), 3, 0.25, 0.5)
    mine.peer.send(Kind.PONG)
    await until(lambda: len(theirs.taken) == 2)

    first, second = theirs.taken
    assert (first.kind, first.number, first.head) == (Kind.RETURNED, 7, ("a", None, 1.5))
    assert first.content is not None
    assert loaded(first.content) == [1]
    assert (first.slot, first.began, first.ended) == (3, 0.25, 0.5)
    assert second == (Kind.PONG, 0, None, None, -1, 0.0, 0.0)


async def test_those_of_one_turn_of_the_loop_come_at_once(ends: tuple[End, End]) -> None:
    mine, theirs = ends
    for number in range(100):
        mine.peer.send(Kind.SUBMIT, number, 5, content(number))
    await until(lambda: len(theirs.taken) == 100)

    assert len(theirs.turns) <= 3
    assert [message.head for message in theirs.taken] == [5] * 100


async def test_many_of_any_size_keep_their_order(ends: tuple[End, End]) -> None:
    mine, theirs = ends
    sizes = [0, 1, 100, INLINE // 2 - 100, 40_000, 200_000]  # the last two are in segments
    for number in range(1200):
        mine.peer.send(Kind.RETURNED, number, None, content(bytes(sizes[number % len(sizes)])))
        if number % 200 == 199:
            await asyncio.sleep(0)
    await until(lambda: len(theirs.taken) == 1200)

    assert [message.number for message in theirs.taken] == [*range(1200)]
    for message in theirs.taken:
        assert message.content is not None
        assert len(loaded(message.content)) == sizes[message.number % len(sizes)]


async def test_what_follows_a_large_content_of_the_same_job_waits_for_its_copy(ends: tuple[End, End]) -> None:
    mine, theirs = ends
    mine.peer.send(Kind.SUBMIT, 1, None, content(bytearray(LARGE)))
    mine.peer.send(Kind.CANCEL, 1)
    mine.peer.send(Kind.PROGRESSED, 1, None, content(bytearray(40_000)))
    mine.peer.send(Kind.UNLOAD, 1)  # is not about the job
    await until(lambda: len(theirs.taken) == 4)

    kinds = [message.kind for message in theirs.taken]
    assert kinds[0] == Kind.UNLOAD
    assert kinds[1:] == [Kind.SUBMIT, Kind.CANCEL, Kind.PROGRESSED]


async def test_options_that_are_too_long_or_not_plain_are_refused(ends: tuple[End, End]) -> None:
    mine, theirs = ends
    for head in ("x" * INLINE, object()):
        with pytest.raises(ValueError, match=r"options of a job take|unmarshallable"):
            mine.peer.send(Kind.SUBMIT, 1, head)
    longest = b"x" * (INLINE // 2 - 200)
    for number in range(4):
        mine.peer.send(Kind.SUBMIT, number, longest, bytes(INLINE // 2))
    await until(lambda: len(theirs.taken) == 4)
    assert [(message.number, message.head) for message in theirs.taken] == [(number, longest) for number in range(4)]


@pytest.mark.parametrize(
    "nonsense",
    [b"nonsense", b"", marshal.dumps(3), marshal.dumps([]), marshal.dumps([(1, 2)]), marshal.dumps([[1] * 8])],
)
async def test_what_is_no_frame_ends_the_connection_and_leaves_no_descriptor(
    ends: tuple[End, End], nonsense: bytes
) -> None:
    mine, theirs = ends
    pipe = Pipe()
    socket.send_fds(mine.connection, [nonsense], [pipe.writer])
    await until(lambda: theirs.is_lost)

    assert theirs.taken == []
    assert pipe.is_closed()


async def test_a_descriptor_that_belongs_to_no_message_is_closed(ends: tuple[End, End]) -> None:
    mine, theirs = ends
    pipe = Pipe()
    frame = marshal.dumps([(Kind.PONG, 0, None, None, -1, 0.0, 0.0)], 2)
    socket.send_fds(mine.connection, [frame], [pipe.writer, pipe.writer])
    await until(lambda: theirs.taken)

    assert pipe.is_closed()
