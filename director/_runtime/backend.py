"""What the public classes know of an open Director."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from director._device import Device
    from director._executors.around import Around
    from director._jobs.job import JobExtras, ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import Options
    from director._runtime.stats import Stats
    from director._scheduler.explanation import Explanation
    from director._scheduler.slots import DeviceSlots

T = TypeVar("T")


class Backend(Protocol):
    """An open Director, from its start to its close. To be used on its event loop, but for what says otherwise."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Its event loop."""

    @property
    def device_slots(self) -> list[DeviceSlots]:
        """The devices with their slots, those that are gone among them."""

    def surround(self, around: Around | None) -> None:
        """From any thread: enter `around`, and that of the model, around each call that is queued from now on."""

    @property
    def is_per_slot(self) -> bool:
        """Whether each slot has replicas of its own."""

    @property
    def is_deciding(self) -> bool:
        """From any thread: whether it is in the midst of a decision, which a finalizer or a handler has interrupted."""

    @property
    def any_healthy(self) -> bool:
        """Whether a slot can compute."""

    @property
    def unreachable(self) -> str | None:
        """Why another process that has the devices can't be asked about them; `None` if there is no such process."""

    def submit(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        options: Options,
        patient: bool,
        extra: JobExtras | None = None,
        prepare: Callable[[ScheduledJob[Any]], None] | None = None,
    ) -> ScheduledJob[T]:
        """From any thread: queue the call of `fn`; `patient`: also while the queue is full.

        `prepare` is called with the job before it is queued: after that it may have ended.

        Raises:
            AdmissionError: It is not accepted.
        """

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """From any thread: have the loop call `fn`, after what was posted before."""

    def assign(
        self, model: Model[Any], allowed: frozenset[int] | None, wanted: frozenset[int] | None
    ) -> frozenset[int] | None:
        """Numbers of the slots that may load `model`; `None` for all. See `Residency.assign`."""

    def fitting(self, model: Model[Any] | None, memory: int, allowed: frozenset[int] | None) -> frozenset[int] | None:
        """Numbers of the slots, among `allowed`, whose devices could ever hold `model` and a call's `memory`.

        Raises:
            PlacementError: None could.
        """

    def beside_pins(
        self, model: Model[Any], allowed: frozenset[int] | None, is_any_enough: bool
    ) -> frozenset[int] | None:
        """Numbers of the slots, among `allowed`, on which pinned models leave room to load. See `Fitting.beside_pins`.

        Raises:
            PlacementError: They do.
        """

    async def homes(self, model: Model[Any], allowed: frozenset[int] | None) -> frozenset[int] | None:
        """Those of `allowed`, which `assign` has returned, that load `model`; `None` for all."""

    async def unload(self, model: Model[Any]) -> None:
        """Unload a model everywhere, and wait for it. Cancellation: stops waiting, nothing else."""

    async def explain(self, job: ScheduledJob[Any]) -> Explanation:
        """What a job waits for."""

    def stats(self) -> Stats:
        """A snapshot."""

    def start(
        self,
        name: str,
        ended: Callable[[], None],
        joined: Callable[[Device], None],
        left: Callable[[Device, str], None],
    ) -> None:
        """Begin to start workers.

        Args:
            name: Of the task of the Director coroutine.
            ended: Called on the loop when that has ended before the close.
            joined: Called on the loop when a device of a fleet has come.
            left: Called on the loop when one is gone, with the reason.
        """

    def opened(self) -> None:
        """Tell the hooks that jobs are accepted."""

    def join(self, device: Device, count: int) -> None:
        """Give a device that has come work, in `count` slots."""

    def leave(self, device: Device, reason: str) -> None:
        """Give a device that is gone no more work."""

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing waits or runs, for at most `timeout` seconds. Cancellation: stops waiting."""

    async def close(self, grace: float) -> None:
        """End what is left, unload the models, let the threads end and give the devices back.

        Args:
            grace: Seconds that running calls get to end.
        """

    def shorten_grace(self, grace: float) -> None:
        """While it closes: running calls get at most `grace` seconds from now."""

    def lose_loop(self) -> None:
        """The event loop was closed, so that nothing can be delivered: drop the jobs, let the threads end."""

    def finish(self) -> None:
        """Closed: tell the hooks, and give the devices back."""
