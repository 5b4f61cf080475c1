"""Functions that a child process can import: with keywords, and with errors of their calls or bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def scaled(_resource: Any, item: int, scale: int = 1, *, offset: int = 0) -> tuple[int, int, int]:
    return item, scale, offset


def count(_resource: Any, n: int, *, step: int = 1) -> Iterator[int]:
    yield from range(0, n * step, step)


def one(_only: Any) -> None: ...


def net(_device: Any) -> str:
    return "net"


class Kept:
    def __init__(self, only: Any) -> None:
        self.only = only


def raises_within(_device: Any) -> None:
    len(5)  # type: ignore[arg-type]


def calls_another_within(_device: Any) -> None:
    one(1, 2)  # type: ignore[call-arg]


def raises_value_error(_device: Any) -> None:
    raise ValueError("a value")


def returns_generator(_device: Any) -> Any:
    return (number for number in range(3))
