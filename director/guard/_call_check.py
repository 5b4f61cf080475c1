"""Checks one call: compares the thread's device before and after it, and traces it if wanted."""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING, Any

from director import current_device
from director.guard._cuda import Driver, devices_of
from director.guard._findings import Place, is_library, outward, own_frame, place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from director.guard._findings import FindingLog


class GuardedCall:
    """A context manager around one call."""

    __slots__ = ("_before", "_driver", "_given", "_key", "_look", "_name", "_notebook")

    def __init__(
        self,
        notebook: FindingLog,
        driver: Driver,
        name: str,
        key: tuple[str, int],
        is_close: bool,
        records_nothing: bool,
    ) -> None:
        self._notebook = notebook
        self._driver = driver
        self._name = name
        self._key = key
        self._given = device = current_device()
        ordinal = device.index if device.kind == "cuda" else None
        recorded = self._recorded if records_nothing else None
        self._look = CallTracer(ordinal, driver, self._found, recorded) if is_close else None
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
            self._notebook.trace_next(self._key)
        # Otherwise the next jobs on this slot would begin on the wrong device.
        self._driver.restore(self._before)

    def _found(self, place: Place, used: int, what: str) -> None:
        self._notebook.note_device(self._name, self._given, place, used, what)

    def _recorded(self, place: Place, what: str) -> None:
        self._notebook.note_autograd(self._name, place, what)


class CallTracer:
    """Traces the calling thread from `begin` to `end`, by `sys.setprofile`.

    Only the first mistake is reported: the others mostly follow from it.

    Args:
        given: Ordinal of the device that the call was given; `None` if that is not a CUDA device.
        driver: Reports which device is current.
        found: Called with the place, the ordinal of the other device, and what is on it.
        recorded: Called with the place and the name of a value that autograd has recorded; `None`: it may.
    """

    def __init__(
        self,
        given: int | None,
        driver: Driver,
        found: Callable[[Place, int, str], None],
        recorded: Callable[[Place, str], None] | None,
    ) -> None:
        self._recorded = recorded
        self._given = given
        self._driver = driver
        self._found = found
        self._has_found = False
        # By frame: the identity of each local variable that was checked, by name.
        self._known: dict[FrameType, dict[str, int]] = {}
        self._was_current: int | None = None

    def begin(self) -> bool:
        """Begin to trace; False if this thread has a profile function already."""
        if sys.getprofile() is not None:
            return False
        self._was_current = self._driver.current()
        sys.setprofile(self._profile)
        return True

    def end(self) -> None:
        """Stop tracing."""
        sys.setprofile(None)
        self._known.clear()

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if self._has_found:
            return
        try:
            if event == "c_call":
                self._check_value(getattr(argument, "__self__", None), frame, "")
            elif event == "return":
                self._check_value(argument, frame, "what is returned")
            if not is_library(frame.f_code.co_filename):
                self._check_locals(frame)
                self._check_current_device(frame)
            elif event == "c_return":
                self._check_current_device(frame)
            if event == "return":
                self._known.pop(frame, None)
        except Exception:  # noqa: BLE001, S110 -- an error of an inspected object must not fail the call
            pass

    def _check_locals(self, frame: FrameType) -> None:
        known = self._known.setdefault(frame, {})
        for name, value in frame.f_locals.items():
            if known.get(name) != id(value):
                known[name] = id(value)
                self._check_value(value, frame, name)

    def _check_value(self, value: Any, frame: FrameType, name: str) -> None:
        if self._recorded is not None and is_recorded(value) and (own := own_frame(outward(frame))) is not None:
            line = _stored_at(frame, name) if own is frame and name in frame.f_code.co_varnames else None
            self._has_found = True
            self._recorded(place_of(own, line), name or f"a {type(value).__name__}")
            return
        for device in devices_of(value):
            if device != self._given:
                line = _stored_at(frame, name) if name in frame.f_code.co_varnames + frame.f_code.co_cellvars else None
                self._report(frame, device, name or f"a {type(value).__name__}", line)

    def _check_current_device(self, frame: FrameType) -> None:
        current = self._driver.current()
        if current is not None and current not in (self._given, self._was_current):
            self._report(frame, current, "the thread")
        self._was_current = current

    def _report(self, frame: FrameType, device: int, what: str, line: int | None = None) -> None:
        own = own_frame(outward(frame))
        if own is None or self._has_found:
            # Done by a library outside of the user's function, or a consequence of the first mistake.
            return
        self._has_found = True
        self._found(place_of(own, line if own is frame else None), device, what)


def _stored_at(frame: FrameType, name: str) -> int:
    """The line that last assigned a local variable: the profile function is called some lines later."""
    line = frame.f_code.co_firstlineno  # if it is an argument
    for step in dis.get_instructions(frame.f_code):
        if step.offset >= frame.f_lasti:
            break
        if step.argval == name and step.opname.startswith("STORE_") and step.positions is not None:
            line = step.positions.lineno or line
    return line


def is_switched_off() -> bool:
    """Whether torch is imported and records nothing on the calling thread: its grad mode is per thread."""
    is_enabled = getattr(sys.modules.get("torch"), "is_grad_enabled", None)
    return callable(is_enabled) and not is_enabled()


def is_recorded(value: Any) -> bool:
    """Whether `value` is a tensor with a graph behind it."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return isinstance(tensor, type) and isinstance(value, tensor) and getattr(value, "grad_fn", None) is not None
