"""The settings of a run, and what a flow gives and asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from director.cli._run.calls.halt import Halt
from director.cli._run.calls.retry import RetryRule, TimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director import Device, Job
    from director.cli._run.input.items import Item
    from director.cli._run.output.saved import Template


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item whose call has ended.

    Args:
        item: The item.
        error: Its error; `None` for a success.
        device: Label of the device; `None` if it never ran.
        seconds: How long it ran; `None` if it never ran or its call still runs.
    """

    item: Item
    error: BaseException | None = None
    device: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a run.

    Args:
        window: Most items between input and output.
        ordered: Lines in the order of the input; else as the items are done.
        halt: When the run ends before the input does.
        traced: Whether error records contain tracebacks.
        apart: The calls are made in other processes, or of many items each, and can't check for a halt: only the event
            loop halts the run.
        retry: Which failed items are tried again.
        limit: How long an item may run.
        ended_apart: The processes that make the calls end at that limit; else the Director fails the item.
        slots: How many items run at once.
        save: Results are saved to files of these names, and the records hold the names; `None`: they hold the results.
    """

    window: int
    ordered: bool = False
    halt: Halt = field(default_factory=Halt)
    traced: bool = False
    apart: bool = False
    retry: RetryRule = field(default_factory=RetryRule)
    limit: TimeLimit = field(default_factory=TimeLimit)
    ended_apart: bool = False
    slots: int = 1
    save: Template | None = None


class Jobs(Protocol):
    """Submits jobs to a Director."""

    def submit(
        self, function: Callable[[Any, Any], Any], value: Any, timeout: float | None, avoided: Sequence[Device]
    ) -> Job[Any]:
        """Queue a call.

        Args:
            function: Called with the resource and `value`.
            value: Of the item.
            timeout: Seconds it may run.
            avoided: Devices on which it has failed; another one is taken if there is one.
        """

    def slots_of(self, device: str) -> int:
        """How many slots a device has."""
