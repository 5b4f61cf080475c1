"""Models, and where they are resident.

`Residency` is written by the slots' threads (loaded, unloaded) and by the Director (assigned), under its own lock.
`resident` is read under `scheduler`'s lock and therefore takes none: it returns a frozen set that is replaced as a
whole, like the two dicts. The lock is reentrant: a finalizer or signal handler may run during a change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from director._device import Device
from director._untrusted.numbers import whole
from director._untrusted.objects import name_of, repr_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


R = TypeVar("R")


class Model(Generic[R]):
    """A model that jobs use: one replica for each device, loaded when a job first needs it there.

    A job with ``model=`` gets the replica as its first argument. Loading, warming up, running and unloading happen on
    slots' own threads; jobs that need a replica which is being loaded wait for that load.

    Args:
        load: ``load(device)`` makes a replica. What it raises fails the jobs that wait for it; later jobs load again.
        unload: ``unload(replica)`` when it is unloaded; by default the reference is dropped.
        warmup: ``warmup(replica)`` after loading, before the first job sees the replica.
        devices: The devices it may be loaded on (`Device`, index, UUID or name); `None` for all.
        replicas: Load it on that many devices only, those with the fewest models; `None` for all.
        per_slot: One replica for each slot instead of each device, for code that is bound to one thread.
        name: For logs and events; `None` takes the loader's name.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: `replicas` is below 1.
    """

    def __init__(
        self,
        load: Callable[[Device], R],
        *,
        unload: Callable[[R], object] | None = None,
        warmup: Callable[[R], object] | None = None,
        devices: Iterable[Device | int | str] | Device | int | str | None = None,
        replicas: int | None = None,
        per_slot: bool = False,
        name: str | None = None,
    ) -> None:
        if not callable(load):
            raise TypeError(f"Model(load) needs a callable that takes a Device, not {repr_of(load)}")
        if replicas is not None:
            replicas = whole("replicas", replicas, 1, kind="an int or None")
        for option, value in (("unload", unload), ("warmup", warmup)):
            if value is not None and not callable(value):
                raise TypeError(f"{option} must be a callable that takes a replica, not {repr_of(value)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self.load = load
        self.unload = unload
        self.warmup = warmup
        self.devices = devices if devices is None or isinstance(devices, (Device, int, str)) else tuple(devices)
        self.replicas = replicas
        self.per_slot = per_slot
        self.name: str = name or name_of(load)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}>"
