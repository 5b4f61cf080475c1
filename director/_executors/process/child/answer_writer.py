"""Sends the answers of a child to its parent. For any thread of the child."""

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
_NOT_OUTCOMES = frozenset({AnswerKind.REPORTED, AnswerKind.LOGGED})


class AnswerWriter:
    """Sends answers.

    Args:
        target: The socket.
    """

    def __init__(self, target: socket.socket) -> None:
        self.answered = 0  # the number of the last call with a last answer
        self._target = target
        self._process = os.getpid()
        self._sequence = 0
        # A finalizer may send an answer while its thread sends another: it is sent after that.
        self._lock = threading.RLock()
        self._is_sending = False
        self._waiting: deque[tuple[int, int, Payload, float, float]] = deque()

    def send_value(self, kind: int, number: int, value: Any = None, began: float = 0.0, ended: float = 0.0) -> int:
        """Send a value of the user's that belongs to the call `number`; returns how many segments it takes.

        Raises:
            PicklingError: It can't be sent.
            OSError: There is no memory, or no descriptor, for it.
        """
        try:
            payload = _NOTHING if value is None else wrap(value)
        except Exception:  # noqa: BLE001 - `pack` may succeed by value, else its error has the remedy
            payload = pack(value, lambda: _WORDS[kind])
        return self.send(kind, number, payload, began, ended)

    def send_plain(self, kind: int, number: int, values: Any = None, began: float = 0.0, ended: float = 0.0) -> None:
        """Send plain values of the package's own: reading them runs no code of the user's.

        Raises:
            ValueError: A value is not plain.
            OSError: There is no memory, or no descriptor, for it.
        """
        content = b"" if values is None else marshal.dumps(values)
        self.send(kind, number, Payload(content, []) if len(content) <= INLINE else wrap(content), began, ended)

    def send(self, kind: int, number: int, payload: Payload, began: float, ended: float) -> int:
        """Send a payload; returns how many segments it takes.

        Raises:
            OSError: There is no memory, or no descriptor, for it.
        """
        if os.getpid() != self._process:
            _exit_copy(kind)
            return 0
        with self._lock:
            if self._is_sending:
                self._waiting.append((kind, number, payload, began, ended))
                return 0
            self._is_sending = True
            try:
                segment = self._post(kind, number, payload, began, ended)
                while self._waiting:
                    with suppress(OSError):  # the current answer must not fail
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


def _exit_copy(kind: int) -> None:
    """In a forked copy of the child: exit where its call would return, because the copy has no parent here."""
    if kind in _NOT_OUTCOMES:
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
