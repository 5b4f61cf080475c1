"""Pickles functions and exceptions by Ray's own cloudpickle.

With another one, a class of the driver's main module would come back from an actor as a different class.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._ipc.exceptions import RemoteError, pack_error
from director._untrusted.objects import describe
from director.errors import JobError

if TYPE_CHECKING:
    from types import ModuleType

    from director._executors.ray.messages import Payload

_by_value = {"__main__"}  # names of modules that no actor can import; never shrinks


def send_by_value(module: ModuleType) -> None:
    """Have functions and classes of `module` sent to actors by value, not by their names.

    For a module that the nodes can't import, such as one beside the script. The main module is always sent by value.

    Args:
        module: An imported one.
    """
    from ray import cloudpickle

    register: Any = cloudpickle.register_pickle_by_value
    register(module)
    _by_value.add(module.__name__)


def goes_by_value(fn: Any) -> bool:
    """Whether no actor can import the module of a function."""
    return fn.__module__ in _by_value


def dumps(value: Any) -> bytes:
    """Pickle `value`; what the other side can't import, by value.

    Raises:
        Exception: It can't be pickled; of any kind, because classes in it may raise.
    """
    from ray import cloudpickle

    packed: bytes = cloudpickle.dumps(value)
    return packed


def packed_error(error: BaseException) -> tuple[Payload, bool]:
    """In the actor: an exception as it is sent, and whether the device can't be used any more."""
    fields = error_fields(error)
    fault = RemoteError(*fields).fault
    return (pickle.dumps(fields), [], []), fault is not None and fault[0] == "sticky"


def error_fields(error: BaseException) -> tuple[Any, ...]:
    """In the actor: the fields of the `RemoteError` of an exception."""
    try:
        packed = pack_error(error, lambda error: (dumps(error), []))
    except BaseException:  # noqa: BLE001 - raised by its class
        packed = pack_error(JobError(f"{describe(error)} (the exception itself could not be sent from its process)"))
    if packed.fault is not None and packed.fault[0] == "memory":
        free_caches(error)
    return tuple(packed)
