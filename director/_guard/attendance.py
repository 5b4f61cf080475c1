"""What the guard does around one call: a glance at the thread's device before and after, or a close look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director import current_device
from director._guard.close_look import CloseLook

if TYPE_CHECKING:
    from types import TracebackType

    from director._guard.cuda import Driver
    from director._guard.notebook import Notebook
    from director._guard.places import Place


class Attendance:
    """A context manager around one call.

    Args:
        notebook: Takes findings.
        driver: Tells which device is current.
        name: The job's name.
        key: By which the notebook knows the function on this slot.
        is_close: Take a close look.
    """

    __slots__ = ("_before", "_driver", "_given", "_key", "_look", "_name", "_notebook")

    def __init__(self, notebook: Notebook, driver: Driver, name: str, key: tuple[str, int], is_close: bool) -> None:
        self._notebook = notebook
        self._driver = driver
        self._name = name
        self._key = key
        self._given = device = current_device()
        ordinal = device.index if device.kind == "cuda" else None
        self._look = CloseLook(ordinal, driver, self._found) if is_close else None
        self._before: int | None = None

    def __enter__(self) -> None:
        self._before = self._driver.context()
        if self._look is not None and not self._look.begin():
            self._look = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._look is not None:
            self._look.end()
        if self._before is None or self._driver.context() == self._before:
            return
        if self._driver.current() != self._given.index and self._look is None:
            self._notebook.suspect(self._key)
        self._driver.put_back(self._before)  # or the jobs that follow on this slot would begin on the wrong device

    def _found(self, place: Place, used: int, what: str) -> None:
        self._notebook.note_device(self._name, self._given, place, used, what)
