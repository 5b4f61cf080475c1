"""How answers travel: heavy ones by themselves, the others as bytes, which Ray carries at half the cost. Pure."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._executors._process.references import describe
from director._executors._ray.pickling import dumps, loads
from director._executors._ray.wire import Answer, Word

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
LIGHT = 1 << 16  # bytes, more or less; what is heavier is not copied on its way


def weight(value: Any) -> int:
    """Bytes of a value, as far as it tells."""
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    return len(value) if isinstance(value, (bytes, bytearray, memoryview, str)) else 0


def is_plain(answer: Answer) -> bool:
    """Whether the quickest pickler there is can do it, and at any time: it does not change."""
    return type(answer.value) in _PLAIN and answer.progress is None and weight(answer.value) <= LIGHT


def alone(number: int, answer: Answer) -> bytes | tuple[Any, ...]:
    """What an actor returns that has nothing else to say."""
    return together([(number, answer)]) if is_plain(answer) else tuple(answer)


def sealed(answer: Any) -> bytes:
    """An answer that is to travel with others; one that can't be sent says so, and does not keep the others."""
    try:
        return pickle.dumps(tuple(answer)) if is_plain(answer) else dumps(tuple(answer))
    except Exception as error:  # noqa: BLE001 - whatever the class of the value raises
        return pickle.dumps(tuple(answer._replace(word=Word.UNSENDABLE, progress=None, value=describe(error))))


def together(answers: Iterable[tuple[int, Answer | bytes]]) -> bytes:
    """Several, each under the number of its call."""
    return pickle.dumps([(number, each if type(each) is bytes else sealed(each)) for number, each in answers])


def apart(content: bytes) -> list[tuple[int, bytes]]:
    """What `together` was given."""
    answers: list[tuple[int, bytes]] = loads(content)
    return answers


def opened(content: bytes | tuple[Any, ...]) -> Answer:
    """One answer again.

    Raises:
        BaseException: Its value can't be made here.
    """
    return Answer(*(loads(content) if type(content) is bytes else content))
