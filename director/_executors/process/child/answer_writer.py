"""The child's way to its parent. Any thread of the child may tell something."""

from __future__ import annotations

import marshal
import os
import socket
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress
from typing import Any

from director._ipc import shared_memory as segments
from director._ipc.by_name import pack
from director._ipc.frames import INLINE, AnswerKind, answer_head
from director._ipc.pickling import Payload, wrap

_NOTHING = Payload(b"", [])
_WORDS: dict[int, str] = {
    AnswerKind.RETURNED: "the result",
    AnswerKind.REPORTED: "what report() was given",
    AnswerKind.YIELDED: "a value of the stream",
}
_ASIDE = frozenset({AnswerKind.REPORTED, AnswerKind.LOGGED})


class AnswerWriter:
    """Sends answers.

    Args:
        target: Where to.
    """

    def __init__(self, target: socket.socket) -> None:
        self.answered = 0  # the last call that has had its last answer
        self._target = target
        self._process = os.getpid()
        self._sequence = 0
        # A finalizer may tell something in the midst of an answer, on the thread that sends it: it waits its turn.
        self._lock = threading.RLock()
        self._is_sending = False
        self._waiting: deque[tuple[int, int, Payload, float, float]] = deque()

    def tell(self, kind: int, number: int, value: Any = None, began: float = 0.0, ended: float = 0.0) -> int:
        """Tell the parent a value of the user's that belongs to the call `number`; returns the segments that it takes.

        Raises:
            PicklingError: It can't be sent.
            OSError: There is no memory, or no descriptor, for it.
        """
        try:
            payload = _NOTHING if value is None else wrap(value)
        except Exception:  # noqa: BLE001 - there may be another way; else this says what to do
            payload = pack(value, lambda: _WORDS[kind])
        return self.send(kind, number, payload, began, ended)

    def tell_plainly(self, kind: int, number: int, values: Any = None, began: float = 0.0, ended: float = 0.0) -> None:
        """Tell the parent something of the package's own, of plain values: to read it runs no code of the user's.

        Raises:
            ValueError: It is not plain.
            OSError: There is no memory, or no descriptor, for it.
        """
        content = b"" if values is None else marshal.dumps(values)
        self.send(kind, number, Payload(content, []) if len(content) <= INLINE else wrap(content), began, ended)

    def send(self, kind: int, number: int, payload: Payload, began: float, ended: float) -> int:
        """Send what has been pickled; returns the segments that it takes.

        Raises:
            OSError: There is no memory, or no descriptor, for it.
        """
        if os.getpid() != self._process:
            _leave(kind)
            return 0
        with self._lock:
            if self._is_sending:
                self._waiting.append((kind, number, payload, began, ended))
                return 0
            self._is_sending = True
            try:
                segment = self._post(kind, number, payload, began, ended)
                while self._waiting:
                    with suppress(OSError):  # not the fault of this answer
                        self._post(*self._waiting.popleft())
                return segment
            finally:
                self._is_sending = False

    def _post(self, kind: int, number: int, payload: Payload, began: float, ended: float) -> int:
        stream, buffers = payload
        if segment := int(bool(buffers) or len(stream) > INLINE):
            with segments.filled(payload) as (descriptor, length):
                whole = answer_head(self._sequence, number, kind, 1, length, began, ended)
                socket.send_fds(self._target, [whole], [descriptor])
        else:
            self._target.send(answer_head(self._sequence, number, kind, 0, 0, began, ended) + stream)
        self._sequence += 1
        if ended:
            self.answered = number
        return segment


def _leave(kind: int) -> None:
    """In a copy of the child that was forked, which has no parent here: it ends where its call would come back."""
    if kind in _ASIDE:
        return
    error = sys.exc_info()[1]
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
    with suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)
