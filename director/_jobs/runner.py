"""What a user's executor is made of: a `Runner`, which gets each call as a `Call` and reports to `RunnerEvents`.

The executors of this package implement `JobRunner` instead; `director._runtime.worker_thread.call_runner` adapts a
`Runner` to that.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from director._jobs.job import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextvars import Context

    from director._jobs.job import Job
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class RunnerEvents(Protocol):
    """What runners report; one object for each open Director. Its methods may be called on any thread."""

    @property
    def time(self) -> Callable[[], float]:
        """Seconds of the Director's clock."""

    def share_replicas(self) -> None:
        """A replica serves all slots of its device; without this call, only the slot that has loaded it.

        For `Executor.runner`, before anything is loaded.
        """

    def loading(self, model: Model[Any], slot: SlotInfo) -> None:
        """A call on `slot` begins to load a replica. May be left out."""

    def loaded(self, model: Model[Any], slot: SlotInfo, seconds: float) -> None:
        """A replica was loaded in `seconds` of a call on `slot`: jobs that need it prefer such slots."""

    def not_loaded(self, model: Model[Any], slot: SlotInfo, error: BaseException) -> None:
        """A loader, or a warm-up, raised: jobs that need the model prefer other devices for a while."""

    def unloading(self, model: Model[Any], slot: SlotInfo) -> None:
        """The replica that `slot` has loaded is being unloaded. May be left out."""

    def unloaded(self, model: Model[Any], slot: SlotInfo, freed: int | None = None) -> None:
        """The replica that `slot` has loaded was unloaded or lost.

        Args:
            model: Its model.
            slot: The slot.
            freed: Bytes of the device that have come back; `None` if that was not measured.
        """

    def load_awaited(self, slot: SlotInfo, seconds: float) -> None:
        """A call on `slot` has spent `seconds` on a load that failed, or that another slot made."""

    def progressed(self, jobs: Iterable[Job[Any]], progress: Any) -> None:
        """The call of `jobs` has reported its progress; as `director.report`."""


class Call:
    """One call that a `Runner` makes: ``fn(resource, *args, **kwargs)``, and for a batch ``fn(resource, items)``.

    The resource is the replica of `model` or, without a model, the slot's `Device`.

    Args:
        fn: A blocking function. Of a stream it puts the values itself, if it is called in this process.
        args: Its positional arguments but for the resource; of a batch there are none.
        kwargs: Its keyword arguments; of a batch there are none.
        items: Of a batch; `None` of any other call. The function returns a result for each.
        model: What must be loaded; `None` for none.
        context: The variables of the caller: ``call.context.run(call.fn, ...)`` where the call is made in this process.
        jobs: The jobs of the call; their `name`, `id` and `priority` may be read on any thread.
        generator: Of a stream: the generator function, for a runner that makes the calls elsewhere; else `None`.
        put: Of a stream: takes each value, in order, on the thread of `Runner.run`. It blocks while the buffer is full,
            and raises when the reader has left. Else `None`.
    """

    __slots__ = ("args", "context", "fn", "generator", "items", "jobs", "kwargs", "model", "put")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = _NOTHING,
        *,
        context: Context,
        items: list[Any] | None = None,
        model: Model[Any] | None = None,
        jobs: Sequence[Job[Any]] = (),
        generator: Callable[..., Any] | None = None,
        put: Callable[[Any], None] | None = None,
    ) -> None:
        self.fn: Callable[..., Any] = fn
        self.args: tuple[Any, ...] = args
        self.kwargs: Mapping[str, Any] = kwargs
        self.items: list[Any] | None = items
        self.model: Model[Any] | None = model
        self.context: Context = context
        self.jobs: Sequence[Job[Any]] = jobs
        self.generator: Callable[..., Any] | None = generator
        self.put: Callable[[Any], None] | None = put

    def cancelled(self) -> bool:
        """From any thread: whether all its jobs were cancelled or are out of time, or the Director closes."""
        return bool(self.jobs) and not any(fields(job).is_wanted for job in self.jobs)


class Runner(Protocol):
    """Makes the calls of one slot, one at a time. A user writes it.

    A `DeviceLost`, or a `WorkerDied` with the slot's device, says that the worker is lost: `retries` count then, and
    several in a row take the device out of use. Anything else that `run` raises is the error of its jobs.
    """

    def run(self, call: Call) -> Any:
        """On the slot's thread: make the call and return what it returns; raise what it raises."""

    def abandon(self, call: Call) -> None:
        """On the event loop: `call.cancelled()` has become true while it runs. May do nothing; must not block.

        The slot's thread may be about to enter `run` with this call, or may just have left it.
        """

    def abort(self) -> bool:
        """On the event loop, when the Director closes: end the call that runs; False if that can't be done."""

    def close(self) -> None:
        """On the slot's thread, after its last call: unload the models and release all resources."""
