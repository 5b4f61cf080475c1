"""One end of the connection between an application process and the server process.

A message has plain values and perhaps a pickled one, which this end does not unpickle. The socket preserves message
boundaries. Many messages travel in one frame, which is packed, sent, received and unpacked at once.
"""

from __future__ import annotations

import errno
import marshal
from collections import deque
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from director._ipc.channel import Receiver, close_all, send
from director._ipc.frames import INLINE, WireBroken
from director._ipc.server.body import Body
from director._system.forks import watch
from director._system.threads import DaemonThreadExecutor

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from director._ipc.server.body import Content

_FORMAT = 2  # of `marshal`: later ones look for values that occur twice
_FIELDS = 64  # most bytes of a message without its plain values and its content
_MOST_PLAIN = INLINE // 2 - 2 * _FIELDS  # bytes
_LARGE = 1 << 18  # bytes that are copied into a segment on a thread, not on the event loop
_AT_ONCE = 128  # messages in a frame


class Kind:
    """What a message says. The first ones are sent by the application, the others by the server."""

    HELLO = 1  # the arguments of the Director: the content
    FUNCTION = 2  # a function gets a number
    MODEL = 3  # a model gets a number
    OPTIONS = 13  # options of jobs get a number
    SUBMIT = 4  # a call: the content has the arguments
    CANCEL = 5  # the job of a call was cancelled, or its time is up
    TAKEN = 6  # the reader has taken so many values of a stream
    RELEASE = 7  # a lease is over
    PING = 8  # answered by a PONG
    CLOSING = 9  # the application closes: its jobs that wait end, its calls are asked to; answered by ANSWERED
    DRAINING = 16  # the application drains: no generator waits for its reader without limit
    UNLOAD = 10  # unload the model that the head numbers; answered by ANSWERED
    EXPLAIN = 11  # say what the job waits for that the head numbers; answered by ANSWERED
    FORGET = 12  # no job will have the function or model with this number any more
    ASSIGN = 15  # say which slots load the model that the head numbers; answered by ANSWERED
    SHOW = 14  # open a dashboard; the head: the path of its socket
    WELCOME = 20  # the devices: the content
    REFUSED = 21  # why: the head
    STARTED = 22  # the call of a job has begun
    RETURNED = 23  # it has returned: the content
    RAISED = 24  # it has raised, or could not be made: the content
    CANCELLED = 25  # the job is over, and was cancelled
    YIELDED = 26  # a value of a stream: the content
    PROGRESSED = 27  # what `report` was given: the content
    LOGGED = 28  # a record of logging: the content
    RETRIED = 34  # an attempt has failed, and there will be another: the content has the error; the head: it had begun
    STATS = 29  # a snapshot: the content
    STALE = 30  # a call is not made: the source of its function has changed since the server has imported it
    PONG = 31
    ANSWERED = 33  # to the question with this number: perhaps a body
    COUNTS = 32  # the content is the memory in which applications count their jobs; the head: the row there


_NOT_OF_JOBS = frozenset(
    {
        *(Kind.HELLO, Kind.FUNCTION, Kind.MODEL, Kind.FORGET, Kind.OPTIONS, Kind.PING, Kind.CLOSING, Kind.UNLOAD),
        *(Kind.EXPLAIN, Kind.WELCOME, Kind.REFUSED, Kind.LOGGED, Kind.STATS, Kind.PONG, Kind.ANSWERED, Kind.COUNTS),
        *(Kind.SHOW, Kind.ASSIGN, Kind.DRAINING),
    }
)


class Message(NamedTuple):
    """A message.

    Args:
        kind: A `Kind`.
        number: Of the job, function or model.
        plain: An integer, other plain values as `marshal` has packed them, or `None`; see `head`.
        content: A value that is still pickled.
        slot: The number of a slot; -1 for none.
        began, ended: Seconds of the monotonic clock, which is the same in all processes of a machine.
    """

    kind: int
    number: int
    plain: int | bytes | None
    content: Content | None
    slot: int
    began: float
    ended: float

    @property
    def head(self) -> Any:
        """Plain values."""
        return marshal.loads(self.plain) if type(self.plain) is bytes else self.plain  # noqa: S302 - of this user's processes


_Fields: TypeAlias = "tuple[int, int, int | bytes | None, Any, int, float, float]"
_CONTENT = 3


class Peer:
    """Sends and receives messages on an event loop.

    `send` may be called from any thread, but what follows a first message with the number of a job, as all else does,
    belongs to the event loop.

    Args:
        connection: A connected socket that preserves message boundaries; it is closed with the peer.
        loop: The event loop.
        take: Called with the messages that have arrived.
        lost: Called once when the other end has gone, or has broken the protocol.
        not_sent: Called with the number of a message whose body could not be copied, and the error.
    """

    def __init__(
        self,
        connection: socket.socket,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[list[Message]], None],
        lost: Callable[[], None],
        not_sent: Callable[[int, OSError], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._descriptor = connection.fileno()
        self._loop = loop
        self._thread = get_ident()
        self._take = take
        self._lost = lost
        self._not_sent = not_sent
        self._receiver = Receiver(connection, 1)  # none is left over that no event would tell of
        self._outbox: deque[_Fields] = deque()
        self._frame: tuple[bytes, Body | None] | None = None  # packed and not sent
        self._is_flushing = False  # `_flush` will be called
        self._copies: dict[int, list[_Fields]] = {}  # by number: messages after one that is copied
        self._copier: DaemonThreadExecutor | None = None
        self.is_open = True
        loop.add_reader(self._descriptor, self._readable)
        watch(self._be_forked)

    def send(
        self,
        kind: int,
        number: int = 0,
        head: Any = None,
        content: Content | None = None,
        slot: int = -1,
        began: float = 0.0,
        ended: float = 0.0,
    ) -> None:
        """From any thread: send a message, with those of the same turn of the event loop.

        Raises:
            ValueError: The head is not plain, or too long.
            OSError: There is no memory or no descriptor left for a large content.
        """
        if head is not None and type(head) is not int:
            head = marshal.dumps(head, _FORMAT)
            if len(head) > _MOST_PLAIN:
                raise ValueError(f"the options of a job take {len(head)} bytes, and at most {_MOST_PLAIN} can be sent")
        message = kind, number, head, content, slot, began, ended
        if self._copies and number in self._copies and kind not in _NOT_OF_JOBS:
            self._copies[number].append(message)
        elif not isinstance(content, Body):
            self._post(message)
        elif kind not in _NOT_OF_JOBS and content.descriptor < 0 and content.size > _LARGE:
            self._copy(number, message, content)
        else:
            content.fill()
            self._post(message)

    def receive(self) -> None:
        """Take the messages that have arrived, without waiting for the event loop."""
        if self.is_open:
            self._receive(_AT_ONCE)

    def close(self) -> None:
        """Send what there is room for, and close."""
        if not self.is_open:
            return
        self._flush()
        if self.is_open:
            self._shut()

    def drop(self) -> None:
        """The event loop is closed: close the socket."""
        if self.is_open:
            self.is_open = False
            self._receiver.close()
            self._connection.close()

    # ----

    def _be_forked(self, _origin: int) -> None:
        """In a forked process: the other end must notice when this end's process ends, whatever it has forked."""
        self.drop()

    def _post(self, message: _Fields) -> None:
        self._outbox.append(message)
        if not self._is_flushing and self.is_open:
            self._is_flushing = True
            try:
                if get_ident() == self._thread:
                    self._loop.call_soon(self._flush)
                else:
                    self._loop.call_soon_threadsafe(self._flush)
            except BaseException:  # of a signal handler: the next message must be flushed
                self._is_flushing = False
                raise

    def _copy(self, number: int, message: _Fields, body: Body) -> None:
        """Copy a large body on a thread; later messages with its number follow it."""
        self._copies[number] = [message]
        if self._copier is None:
            self._copier = DaemonThreadExecutor("director:copy")

        def copy() -> None:
            problem: OSError | None = None
            try:
                body.fill()
            except OSError as error:
                problem = error
            self._loop.call_soon_threadsafe(self._copied, number, problem)

        self._copier.submit(copy)

    def _copied(self, number: int, problem: OSError | None) -> None:
        message, *followers = self._copies.pop(number)
        if not self.is_open:
            return
        if problem is None:
            self._post(message)
        else:
            self._not_sent(number, problem)
        for follower in followers:
            if isinstance(body := follower[_CONTENT], Body):
                try:
                    body.fill()
                except OSError as error:
                    self._not_sent(number, error)
                    return
            self._post(follower)

    def _flush(self) -> None:
        self._is_flushing = False
        while self.is_open and (self._frame or self._outbox):
            frame, body = self._frame = self._frame or self._pack()
            try:
                send(self._connection, frame, -1 if body is None else body.descriptor)
            except OSError as error:
                self._wait_for_room(error.errno or 0)
                return
            self._frame = None

    def _pack(self) -> tuple[bytes, Body | None]:
        """Take the messages of one frame out of the outbox; one with a segment has a frame of its own."""
        outbox = self._outbox
        messages = [outbox.popleft()]
        if isinstance(body := messages[0][_CONTENT], Body):
            kind, number, plain, _, *times = messages[0]
            return marshal.dumps([(kind, number, plain, body.length, *times)], _FORMAT), body
        size = _size(messages[0])
        while outbox and len(messages) < _AT_ONCE and not isinstance(outbox[0][_CONTENT], Body):
            size += _size(outbox[0])
            if size > INLINE:
                break
            messages.append(outbox.popleft())
        return marshal.dumps(messages, _FORMAT), None

    def _wait_for_room(self, reason: int) -> None:
        if reason not in (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS):
            self._end()
            return
        self._is_flushing = True
        self._loop.add_writer(self._descriptor, self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._flush()

    def _readable(self) -> None:
        self._receive(1)  # frame: if there are more, the event loop calls again

    def _receive(self, enough: int) -> None:
        """Take frames until there are enough messages, or no more now."""
        messages: list[Message] = []
        is_over = False
        try:
            while len(messages) < enough and (received := self._receiver.receive_at_once()) is not None:
                frame, descriptors = received
                if not frame:
                    close_all(descriptors)
                    is_over = True
                    break
                messages += _unpacked(frame, descriptors)
        except Exception:  # noqa: BLE001 - no message of ours
            is_over = True
        if messages:
            self._take(messages)
        if is_over:
            self._end()

    def _end(self) -> None:
        if self.is_open:
            self._shut()
            self._lost()

    def _shut(self) -> None:
        self.is_open = False
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._receiver.close()
        self._connection.close()
        self._outbox.clear()
        self._frame = None
        if self._copier is not None:
            self._copier.shutdown(wait=False)


def _size(message: _Fields) -> int:
    """Bytes in a frame, at most."""
    _, _, plain, content, _, _, _ = message
    return _FIELDS + (len(plain) if type(plain) is bytes else 0) + (0 if content is None else len(content))


def _unpacked(frame: memoryview, descriptors: list[int]) -> list[Message]:
    """The messages in a frame.

    Raises:
        Exception: It is no frame.
    """
    try:
        messages = [*map(_message, marshal.loads(frame))]  # noqa: S302 - of this user's processes
        if set(map(len, messages)) != {len(Message._fields)}:
            raise WireBroken("a message has other fields")
    except BaseException:
        close_all(descriptors)
        raise
    length: Any = messages[0].content
    if type(length) is int:
        descriptor = descriptors.pop() if descriptors else -1
        messages[0] = messages[0]._replace(content=Body(None, descriptor, length))
    close_all(descriptors)
    return messages


_message: Callable[[Any], Message] = partial(tuple.__new__, Message)
