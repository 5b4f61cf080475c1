"""Ray's own cloudpickle: only so does a class of the driver's main module stay the same class when it comes back."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._ipc.exceptions import pack_error
from director._untrusted.objects import describe
from director.errors import JobError

if TYPE_CHECKING:
    from types import ModuleType

    from director._executors.ray.messages import Payload

_by_value = {"__main__"}  # names of modules that no actor can import; only added to


def send_by_value(module: ModuleType) -> None:
    """Have functions and classes of `module` sent to actors as they are, not by their names.

    For a module that the nodes can't import, such as a script's neighbour. The main module always goes by value.

    Args:
        module: An imported one.
    """
    from ray import cloudpickle

    remember: Any = cloudpickle.register_pickle_by_value
    remember(module)
    _by_value.add(module.__name__)


def goes_by_value(fn: Any) -> bool:
    """Whether no actor can import the module of a function."""
    return fn.__module__ in _by_value


def dumps(value: Any) -> bytes:
    """Pickle `value`: what the other side can't import, as it is.

    Raises:
        Exception: It can't be done; which one, is up to the class of what is in it.
    """
    from ray import cloudpickle

    packed: bytes = cloudpickle.dumps(value)
    return packed


def packed_error(error: BaseException) -> tuple[Payload, bool]:
    """In the actor: what to send of an exception, and whether its device can't be used any more."""
    told = story(error)
    return (pickle.dumps(told), [], []), told[-1] is not None and told[-1][0] == "sticky"


def story(error: BaseException) -> tuple[Any, ...]:
    """In the actor: the fields of the `RemoteError` of an exception."""
    try:
        told = pack_error(error, lambda error: (dumps(error), []))
    except BaseException:  # noqa: BLE001 - whatever its class raises
        told = pack_error(JobError(f"{describe(error)} (the exception itself could not be sent from its process)"))
    if told.fault is not None and told.fault[0] == "memory":
        free_caches(error)
    return tuple(told)
