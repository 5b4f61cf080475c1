"""Models, and where they are resident.

`Residency` is written by the slots' threads (loaded, unloaded) and by the Director (assigned), under its own lock.
`resident` is read under `scheduler`'s lock and therefore takes none: it returns a frozen set that is replaced as a
whole, like the two dicts. The lock is reentrant: a finalizer or signal handler may run during a change.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from director._device import Device
from director._format import names_meant
from director._untrusted.arguments import check_blocking, check_callable, text, truth
from director._untrusted.numbers import bytes_of, whole
from director._untrusted.objects import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager


R = TypeVar("R")
_keys = count()
_NOT_KEPT = frozenset({"_key", "_resolved", "_record", "load", "warmup", "wake", "around"})


class Model(Generic[R]):
    """A model that jobs use: one replica for each device, loaded when a job first needs it there.

    A job with ``model=`` gets the replica as its first argument. Loading, warming up, running and unloading happen on
    slots' own threads; jobs that need a replica which is being loaded wait for that load. When the program has dropped
    its last reference to the `Model`, and no job uses it, its replicas are unloaded.

    Args:
        load: ``load(device)`` makes a replica. What it raises fails the jobs that wait for it; later jobs load again.
        unload: ``unload(replica)`` when it is unloaded; by default the reference is dropped.
        warmup: ``warmup(replica)`` after loading, before the first job sees the replica.
        devices: The devices it may be loaded on (`Device`, index, UUID or name); `None` for all.
        replicas: Load it on that many devices only, those with the fewest models; `None` for all.
        memory: Bytes of a replica at rest, such as ``"6GiB"``; with `per_slot`, or in processes, of each slot's. A
            Director loads it only where there is so much room, and unloads others for it. `None`: not accounted for,
            unless the Director has a ``memory_limit``.
        sleep: ``sleep(replica)`` moves it to host memory when others need its room; with `wake`. What it returns,
            unless `None`, is the replica that sleeps. Preferred to unloading while host memory has room: half of what
            this process may use.
        wake: ``wake(replica)`` moves it back; what it returns, unless `None`, is the replica. It is a load: it takes
            turns, and what it raises is an error of the load, after which the replica is unloaded.
        pin: Never unload it for others.
        per_slot: One replica for each slot instead of each device, for code that is bound to one thread.
        load_alone: In one process loads take turns, for frameworks change state of the whole process while they load.
            `False`: it is loaded beside other loads. `True`: while nothing else runs in the process, in no thread of a
            Director. Child processes and actors load at the same time, whatever this says.
        around: Gives a context manager, such as ``torch.inference_mode``, that is entered around each call, on the
            thread that makes it, within that of the Director. In child processes too: then it must be picklable.
        name: For logs and events; `None` takes the loader's name.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: `replicas` is below 1, `memory` is no size, or one of `sleep` and `wake` is given without the other.
    """

    _key: int
    """Identifies it within this process; never used again, unlike its `id`."""
    _record: Model[R] | None = None
    _origin: ref[Model[R]] | None = None
    _resolved: dict[int, dict[Any, Any]]
    """Options with this model, by the resolver. They refer to the model, so they are kept here and not by a Director,
    where they would keep it alive."""

    @names_meant
    def __init__(
        self,
        load: Callable[[Device], R],
        *,
        unload: Callable[[R], object] | None = None,
        warmup: Callable[[R], object] | None = None,
        sleep: Callable[[R], object] | None = None,
        wake: Callable[[R], object] | None = None,
        devices: Iterable[Device | int | str] | Device | int | str | None = None,
        replicas: int | None = None,
        memory: int | str | None = None,
        pin: bool = False,
        per_slot: bool = False,
        load_alone: bool | None = None,
        around: Callable[[], AbstractContextManager[object]] | None = None,
        name: str | None = None,
    ) -> None:
        if replicas is not None:
            replicas = whole("replicas", replicas, 1, kind="an int or None")
        check_blocking("load", load, "a callable that takes a Device")
        for option, fn in (("unload", unload), ("warmup", warmup), ("sleep", sleep), ("wake", wake)):
            if fn is not None:
                check_blocking(option, fn, "a callable that takes a replica")
        if (sleep is None) != (wake is None):
            raise ValueError("sleep and wake belong together: give both, or neither")
        if around is not None:
            check_callable("around", around, "a callable that gives a context manager")
        self.load = load
        self.unload = unload
        self.warmup = warmup
        self.sleep = sleep
        self.wake = wake
        if sleep is not None:
            from director._devices.host import usable_memory  # few programs need it

            usable_memory()  # read once, and not under the scheduler's lock
        self.devices: Device | int | str | tuple[Device | int | str, ...] | None
        self.devices = devices if devices is None or isinstance(devices, (Device, int, str)) else tuple(devices)
        self.replicas = replicas
        self.memory: int | None = None if memory is None else bytes_of("memory", memory)
        self.pin: bool = truth("pin", pin)
        self.per_slot: bool = truth("per_slot", per_slot)
        self.load_alone: bool | None = (
            None if load_alone is None else truth("load_alone", load_alone, "True, False or None")
        )
        self.around = around
        self.name: str = ("" if name is None else text("name", name)) or name_of(load)
        self._key, self._resolved = next(_keys), {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_key", "_record", "_resolved")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._key, self._resolved = next(_keys), {}  # a copy is another model

    def __repr__(self) -> str:
        return f"<Model {self.name!r}>"

    def _kept(self) -> Model[R]:
        """What a Director keeps of it: its key, and what an unload needs. Doesn't keep the model itself alive."""
        if self._origin is not None:
            return self
        if self._record is not None:
            return self._record
        record = object.__new__(type(self))
        record.__dict__.update({name: each for name, each in self.__dict__.items() if name not in _NOT_KEPT})
        record._key, record._resolved, record._origin = self._key, {}, ref(self)
        return self.__dict__.setdefault("_record", record)  # type: ignore[no-any-return]  # of two threads the first

    def _itself(self) -> Model[R]:
        """The model that a record was made of, or the record if that is gone."""
        return self if self._origin is None else self._origin() or self
