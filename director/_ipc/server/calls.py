"""The functions that the server's slots call: they unpickle a call, make it and pickle its result, in one place.

They run on a slot's thread of the server, or in a child of it; the server's event loop has bodies only.
"""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from pickle import loads
from typing import TYPE_CHECKING, Any, Literal

from director._ipc.exceptions import RemoteError, pack_error
from director._ipc.server.body import Body, content_of, loaded
from director._ipc.server.traces import traced
from director._jobs import current
from director._jobs.calls import close
from director._jobs.current import NO_REPLICA
from director._untrusted.callables import SUSPENDED, explain_resource, refuse_suspended
from director._untrusted.objects import ForeignError, is_one_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director._ipc.server.body import Content
    from director._jobs.current import CurrentCall

logger = logging.getLogger("director")
_CHILD = "director._executors.process.child.main"  # imported in children only
_REMEMBERED = 256  # functions; then the one that was used longest ago is forgotten
_functions: OrderedDict[bytes, Any] = OrderedDict()  # by reference; written by the threads of slots


class CallRaised(ForeignError):
    """A call has raised; carries the exception as it is sent."""

    def __init__(self, packed: tuple[Any, ...]) -> None:
        super().__init__(packed)
        self.packed = packed
        fault = RemoteError(*packed).fault
        if fault is not None and fault[0] == "memory":  # the cause's text marks it as out of memory
            self.__cause__ = RuntimeError(f"CUDA error: out of memory: {fault[1]}")

    def __str__(self) -> str:
        return RemoteError(*self.packed).text

    def told(self) -> tuple[str, str, str]:
        """The class of the exception with its module, its message and its traceback."""
        error = RemoteError(*self.packed)
        return error.kinds[0] if error.kinds else "", error.text.partition(": ")[2], error.traceback


class RetriedCallRaised(CallRaised):
    """The same, of one of the classes that the job's `retry_on` names."""


def call(resource: Any, reference: bytes, content: Content) -> Content:
    """Make a call: ``fn(resource, *args)``.

    Args:
        resource: The replica or the device.
        reference: The pickled function.
        content: The pickled arguments and `retry_on`, and perhaps a `Trace`.

    Returns:
        The pickled result.

    Raises:
        CallRaised: What it has raised.
    """
    retry_on: Any = ()
    try:
        fn = _function(reference)
        args, retry_on, *traces = loaded(content)
        called = _called(fn, args)
        try:
            value = traced(fn, traces)(resource, *args) if traces else fn(resource, *args)
        except TypeError as error:
            explain_resource(error, called, _kind_of_resource())
            raise
        if type(value) in SUSPENDED:
            refuse_suspended(value, name_of(called))
        return _sent(value, called)
    except Exception as error:
        raise _raised(error, retry_on) from error


def call_plain(_resource: Any, reference: bytes, content: Content) -> Content:
    """Make a call as it was given: ``fn(*args)``; else as `call`."""
    retry_on: Any = ()
    try:
        fn = _function(reference)
        args, retry_on, *traces = loaded(content)
        return _sent(traced(fn, traces)(*args) if traces else fn(*args), _called(fn, args))
    except Exception as error:
        raise _raised(error, retry_on) from error


def call_batch(resource: Any, items: list[tuple[bytes, Any]]) -> Any:
    """Make a call for a batch: ``fn(resource, items)``; an item that can't be unpickled fails alone."""
    outcomes: list[Any] = [None] * len(items)
    sent, values, traces = [], [], []
    retried: list[Any] = [()] * len(items)
    try:
        fn = _function(items[0][0])
    except Exception as error:
        raise _raised(error, ()) from error
    for index, (_, content) in enumerate(items):
        try:
            (value,), retried[index], *trace = loaded(content)
        except BaseException as error:  # noqa: BLE001 - raised by its class
            outcomes[index] = _raised(error, ())
            continue
        sent.append(index)
        values.append(value)
        traces += trace
    if not values:
        return outcomes
    try:
        results = traced(fn, traces)(resource, values) if traces else fn(resource, values)
        if type(results) in SUSPENDED:
            refuse_suspended(results, name_of(fn))
    except Exception as error:
        if isinstance(error, TypeError):
            explain_resource(error, fn, _kind_of_resource(), is_batch=True)
        raise _raised(error, tuple(kind for kinds in retried for kind in kinds)) from error
    if not hasattr(results, "__len__") or isinstance(results, (str, bytes, bytearray, dict, set, frozenset)):
        return results if sent == [*range(len(items))] else []  # refused there as it is: it is no list
    results = [*results]
    if len(results) != len(sent):
        return results
    for index, result in zip(sent, results, strict=True):
        outcomes[index] = _outcome(result, fn, retried[index])
    return outcomes


def stream(resource: Any, reference: bytes, content: Content) -> Iterator[Any]:
    """Run a generator function: ``fn(resource, *args)``; yields pickled values."""
    retry_on: Any = ()
    generator = None
    try:
        fn = _function(reference)
        args, retry_on, *traces = loaded(content)
        try:
            generator = traced(fn, traces)(resource, *args) if traces else fn(resource, *args)
        except TypeError as error:
            explain_resource(error, _called(fn, args), _kind_of_resource())
            raise
        for value in generator:
            yield _sent(value, _called(fn, args))
            del value
    except Exception as error:
        raise _raised(error, retry_on) from error
    finally:
        if generator is not None:
            close(generator)


def apply(resource: Any, fn: Any, *args: Any) -> Any:
    """The function of a call whose own function has no name here."""
    return fn(resource, *args)


def apply_plain(fn: Any, *args: Any) -> Any:
    """The same, of a call as it was given."""
    return fn(*args)


class Loader:
    """The functions of a model.

    Args:
        reference: They are pickled: `load`, `warmup`, `unload` and `around`.
    """

    __slots__ = ("reference",)

    def __init__(self, reference: bytes) -> None:
        self.reference = reference

    def load(self, device: Any) -> Any:
        """Load a replica, and warm it up.

        Raises:
            CallRaised: What the user's code has raised.
        """
        try:
            load, warmup, _, _ = _function(self.reference)
            replica = load(device)
            if warmup is not None:
                try:
                    warmup(replica)
                except BaseException:
                    self.unload(replica)
                    raise
        except Exception as error:
            raise _raised(error, ()) from error
        return replica

    def unload(self, replica: Any) -> None:
        """Unload a replica."""
        _, _, unload, _ = _function(self.reference)
        if unload is not None:
            unload(replica)

    def around(self) -> Any:
        """What is entered around each call."""
        _, _, _, around = _function(self.reference)
        return around()


def _called(fn: Any, args: tuple[Any, ...]) -> Any:
    """The caller's function, of which `apply` and `apply_plain` get one that has no name here."""
    return args[0] if fn is apply or fn is apply_plain else fn


def _kind_of_resource() -> Literal["device", "replica"]:
    return "device" if current.here.running is None or current.here.running.replica() is NO_REPLICA else "replica"


def _function(reference: bytes) -> Any:
    found = _functions.get(reference)
    if found is None:
        found = loads(reference)  # noqa: S301 - of this user's processes
        if type(found) is Body:  # see `Body.packed`
            found = found.load()
        current.send_report = _report
        _functions[reference] = found
        while len(_functions) > _REMEMBERED:
            _functions.popitem(last=False)
    return found


def _report(running: CurrentCall, progress: Any) -> None:
    """Pickle what the user reports here: on the event loop it would block the jobs of all applications."""
    try:
        content = _filled(content_of(progress, lambda: "what report() was given"))
    except Exception:
        logger.exception("what report() was given can't be sent")
    else:
        running.report(progress, content)


def _sent(value: Any, fn: Any) -> Content:
    """A value as it is sent on. A large one is copied now: the function may change it in its next call."""
    return _filled(content_of(value, lambda: f"the result of {name_of(fn)}"))


def _filled(content: Content) -> Content:
    """A large value is copied here, unless it goes to the server first."""
    if type(content) is Body and _CHILD not in sys.modules:
        content.fill()
    return content


def _outcome(result: Any, fn: Any, retry_on: Any) -> Any:
    """The result of one item, or what stands for its error."""
    try:
        return _raised(result, retry_on) if isinstance(result, Exception) else _sent(result, fn)
    except BaseException as error:  # noqa: BLE001 - raised by its class
        return _raised(error, ())


def _raised(error: BaseException, retry_on: Any) -> CallRaised:
    kind = RetriedCallRaised if is_one_of(error, retry_on) else CallRaised
    return kind(tuple(pack_error(error)))
